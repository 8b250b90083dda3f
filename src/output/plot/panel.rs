//! A panel of the plot: lines over time, with a y axis of its own and their names above.

use plotters::chart::ChartBuilder;
use plotters::prelude::{DrawingBackend, IntoFont, Rectangle};
use plotters::series::{AreaSeries, LineSeries};
use plotters::style::{Color, ShapeStyle};

use super::area::{Area, Drawn, LOOKS, MARGIN};
use super::scale::{Scale, Unit};
use super::theme::{self, BAD, DIM, GRID, Shade};

/// Height of the space above a panel for the names of its lines, in pixels.
const NAMES: i32 = 24;

/// Approximate width of a character of a name, in pixels.
const CHARACTER: i32 = 8;

/// A line, as points of time (seconds) and value.
pub struct Curve {
    name: &'static str,
    shade: Shade,
    points: Vec<(f64, f64)>,
    /// True if the area below the line is filled.
    filled: bool,
}

impl Curve {
    /// Returns a curve with its area filled.
    pub fn filled(name: &'static str, shade: Shade, points: Vec<(f64, f64)>) -> Self {
        Self { name, shade, points, filled: true }
    }

    /// Returns a curve that keeps each value until the next point.
    pub fn steps(name: &'static str, shade: Shade, points: Vec<(f64, f64)>) -> Self {
        let mut steps: Vec<(f64, f64)> = Vec::with_capacity(2 * points.len());
        for (at, figure) in points {
            steps.extend(steps.last().map(|&(_, before)| (at, before)));
            steps.push((at, figure));
        }
        Self { name, shade, points: steps, filled: false }
    }

    /// Reduces the points to as many as there is room for: of the points that fall on the same
    /// place, the first, the least, the largest and the last, in order.
    fn thinned(&self, span: f64) -> Vec<(f64, f64)> {
        if self.points.len() <= 4 * LOOKS {
            return self.points.clone();
        }
        let place = |at: f64| (at / span * LOOKS as f64) as usize;
        self.points
            .chunk_by(|a, b| place(a.0) == place(b.0))
            .flat_map(|chunk| {
                let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
                let mut kept: Vec<_> =
                    [chunk.first(), chunk.iter().min_by(by), chunk.iter().max_by(by), chunk.last()]
                        .into_iter()
                        .flatten()
                        .copied()
                        .collect();
                kept.sort_by(|a, b| a.0.total_cmp(&b.0));
                kept
            })
            .collect()
    }
}

/// A panel.
pub struct Panel {
    /// Unit of the lines.
    pub unit: Unit,
    /// The lines to draw.
    pub lines: Vec<Curve>,
    /// Times to mark, in seconds.
    pub marks: Vec<f64>,
    /// Minimum of the upper end of the y axis.
    pub least: f64,
    /// Text for a panel without data.
    pub without: &'static str,
}

impl Panel {
    /// Draws the panel over `span` seconds.
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, span: f64) -> Drawn<DB> {
        let drawn: Vec<_> = self.lines.iter().filter(|line| !line.points.is_empty()).collect();
        let mut x = MARGIN;
        for line in &drawn {
            let square =
                Rectangle::new([(x, 9), (x + 10, 19)], ShapeStyle::from(&line.shade.colour()).filled());
            area.draw(&square)?;
            theme::text(area, line.name, (x + 16, 7), 13, line.shade)?;
            x += 16 + CHARACTER * line.name.len() as i32 + 16;
        }
        if !self.marks.is_empty() {
            theme::text(area, "| limit reached", (x, 7), 13, BAD)?;
        }
        if drawn.is_empty() {
            return theme::text(area, self.without, (MARGIN, 7), 13, DIM);
        }
        let figures = drawn.iter().flat_map(|line| line.points.iter().map(|(_, figure)| *figure));
        let most = figures.fold(self.least, f64::max).max(f64::MIN_POSITIVE);
        let (scale, clock) = (Scale::of(self.unit, most), Scale::of_time(span));
        let (top, end) = (most / scale.one * 1.06, span / clock.one);
        let mut chart = ChartBuilder::on(area)
            .margin_top(NAMES + 4)
            .margin_right(MARGIN + 8)
            .x_label_area_size(26)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        let label = ("sans-serif", theme::pixels(13)).into_font().color(&DIM.colour());
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(theme::BACKGROUND.colour().mix(0.0))
            .bold_line_style(GRID.colour())
            .axis_style(GRID.colour())
            .label_style(label)
            .x_labels(8)
            .y_labels(5)
            .x_label_formatter(&|at| clock.written(*at))
            .y_label_formatter(&|figure| scale.written(*figure))
            .draw()?;
        for line in &drawn {
            let points =
                line.thinned(span).into_iter().map(|(at, figure)| (at / clock.one, figure / scale.one));
            let colour = line.shade.colour();
            if line.filled {
                let area = AreaSeries::new(points, 0.0, colour.mix(0.18));
                chart.draw_series(area.border_style(colour.stroke_width(2)))?;
            } else {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            }
        }
        for mark in &self.marks {
            let at = mark / clock.one;
            chart
                .draw_series(LineSeries::new([(at, top * 0.97), (at, top)], BAD.colour().stroke_width(2)))?;
        }
        Ok(())
    }
}
