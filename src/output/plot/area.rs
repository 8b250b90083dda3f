//! The area that is drawn on.

use plotters::prelude::DrawingBackend;

/// Pixels around what is drawn.
pub const MARGIN: i32 = 16;

/// How many points a line has at the most, and how many looks all cgroups together are looked at.
pub const LOOKS: usize = 600;

/// A part of the page.
pub type Area<DB> = plotters::drawing::DrawingArea<DB, plotters::coord::Shift>;
/// Result of drawing.
pub type Drawn<DB> = Result<(), plotters::drawing::DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;
