//! The drawing area.

use plotters::prelude::DrawingBackend;

/// Margin of the page, in pixels.
pub const MARGIN: i32 = 16;

/// Maximum number of points of a line, and number of samples taken of all cgroups together.
pub const LOOKS: usize = 600;

/// A part of the page.
pub type Area<DB> = plotters::drawing::DrawingArea<DB, plotters::coord::Shift>;
/// Result of drawing.
pub type Drawn<DB> = Result<(), plotters::drawing::DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;
