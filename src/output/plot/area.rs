//! The drawing area.

use plotters::prelude::DrawingBackend;

/// Margin of the page, in pixels.
pub const MARGIN: i32 = 16;

/// Number of places along the time axis, with at most four points of a line each, and number of
/// samples of all cgroups together.
pub const LOOKS: usize = 600;

/// A part of the page.
pub type Area<DB> = plotters::drawing::DrawingArea<DB, plotters::coord::Shift>;
/// Result of drawing.
pub type Drawn<DB> = Result<(), plotters::drawing::DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;
