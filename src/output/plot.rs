//! The plot of a recorded watch: one page of SVG with a title, the outcome, and three panels over
//! the same time axis.

use memctl::record::{Course, Point, Record};
use plotters::prelude::{DrawingBackend, IntoDrawingArea, SVGBackend};

use super::format::{escaped, shortened, size, time};
use crate::error::{Error, Result};

mod area;
mod panel;
mod scale;
mod theme;

pub use area::LOOKS;
use area::{Area, Drawn, MARGIN};
use panel::{Curve, Panel};
use theme::{BACKGROUND, BAD, CALM, DIM, GOOD, INK, MAIN, SOFT, WARM};

/// Sizes in pixels: the page, the space above the panels and around them, and the height of each
/// panel.
const WIDTH: u32 = 800;
const HEIGHT: u32 = 640;
const HEAD: u32 = 84;
const TALL: u32 = 260;
const LOW: u32 = 140;

/// Returns the SVG of a course: of one cgroup, or of all of them together.
pub fn picture(record: &Record, course: &Course) -> Result<String> {
    let mut svg = String::new();
    {
        let backend = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT));
        let area = backend.into_drawing_area();
        let drawn = |e: &dyn std::fmt::Display| Error::new(format_args!("can't draw: {e}"));
        area.fill(&BACKGROUND.colour()).map_err(|e| drawn(&e))?;
        head(&area, record, course).map_err(|e| drawn(&e))?;
        let span = record.span.max(1.0);
        let areas = area
            .split_by_breakpoints([] as [i32; 0], [HEAD, HEAD + TALL, HEAD + TALL + LOW].map(|y| y as i32));
        for (area, panel) in areas[1..].iter().zip(panels(course)) {
            panel.draw(area, span).map_err(|e| drawn(&e))?;
        }
        area.present().map_err(|e| drawn(&e))?;
    }
    Ok(theme::with_dark(&svg))
}

fn head<DB: DrawingBackend>(area: &Area<DB>, record: &Record, course: &Course) -> Drawn<DB> {
    let name = shortened(&escaped(course.pod.as_ref().unwrap_or(&course.name)), 56);
    let rule = course
        .rule
        .as_ref()
        .map_or_else(String::new, |rule| format!(" by rule {}", shortened(&escaped(rule), 24)));
    let dry = if record.dry_run { ", dry run" } else { "" };
    let span = time(std::time::Duration::try_from_secs_f64(record.span).unwrap_or_default());
    let title = format!("memctl watch of {name}, {span}{dry}");
    theme::text(area, &title, (MARGIN, 12), 20, INK)?;
    let outcome = outcome(course, &rule);
    theme::text(area, &outcome, (MARGIN, 40), 13, DIM)?;
    theme::text(area, &details(record, course), (MARGIN, 58), 13, DIM)
}

/// Returns a line of text on the outcome.
fn outcome(course: &Course, rule: &str) -> String {
    let Some(outcome) = course.outcome else {
        let reclaimed = course.points.last().map_or(0, |point| point.reclaimed);
        return format!("reclaimed {} so far{rule}: the record has no end", size(reclaimed));
    };
    let at_most = if outcome.direct_is_at_most { "at most " } else { "" };
    let direct = outcome
        .direct
        .map_or_else(String::new, |direct| format!("; {at_most}{} by the application itself", size(direct)));
    let (reclaimed, requested) = (size(outcome.reclaimed), size(outcome.requested));
    format!("reclaimed {reclaimed} of {requested} requested{rule}{direct}")
}

fn details(record: &Record, course: &Course) -> String {
    let seconds = |seconds: f64| time(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let outcome = course.outcome.unwrap_or_default();
    let parts = [
        outcome.stalled.map(|stalled| format!("stalled for {}", seconds(stalled))),
        record.cpu.map(|cpu| format!("{} of CPU", seconds(cpu))),
        course
            .points
            .iter()
            .rev()
            .find_map(|point| point.working_set)
            .map(|set| format!("working set {}", size(set))),
        outcome.suggested.map(|bytes| format!("suggested memory.max {}", size(bytes))),
        outcome.saved.filter(|&saved| saved > 0).map(|saved| format!("saved {}", size(saved as u64))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Returns the panels, from top to bottom.
fn panels(course: &Course) -> [Panel; 3] {
    let points = &course.points;
    let bytes = |get: &dyn Fn(&Point) -> Option<u64>| -> Vec<(f64, f64)> {
        points.iter().filter_map(|point| Some((point.at, get(point)? as f64))).collect()
    };
    let usage = Panel {
        unit: scale::Unit::Bytes,
        lines: vec![
            Curve::filled("usage", MAIN, bytes(&|point| Some(point.current))),
            Curve::steps("limit", BAD, bytes(&|point| point.limit)),
            Curve::steps("working set", GOOD, bytes(&|point| point.working_set)),
        ],
        marks: course.outrun.clone(),
        least: 0.0,
        without: "",
    };
    let reclaimed = rates(points, |point| Some(point.reclaimed as f64));
    let refaulted = rates(points, |point| point.refaulted.map(|bytes| bytes as f64));
    let flows = Panel {
        unit: scale::Unit::BytesPerSecond,
        lines: vec![Curve::filled("reclaimed", CALM, reclaimed), Curve::steps("refaulted", WARM, refaulted)],
        marks: Vec::new(),
        least: 0.0,
        without: "",
    };
    let stalls = rates(points, |point| point.stalled.map(|seconds| 100.0 * seconds));
    let pressure = Panel {
        unit: scale::Unit::Percent,
        lines: vec![Curve::filled("stalled on memory (PSI some)", SOFT, stalls)],
        marks: Vec::new(),
        least: 1.0,
        without: "no pressure in this record",
    };
    [usage, flows, pressure]
}

/// Returns the rate per second between consecutive points, as steps.
fn rates(points: &[Point], get: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, f64)> {
    /// Minimum distance of two points, in seconds: nearer ones show the kernel's batches rather
    /// than a rate.
    const NEAREST: f64 = 0.5;
    let mut rates = Vec::new();
    let mut from: Option<(f64, f64)> = None;
    let counts = points.iter().filter(|point| point.counted);
    for (at, count) in counts.filter_map(|point| Some((point.at, get(point)?))) {
        match from {
            None => from = Some((at, count)),
            Some((then, before)) if at - then >= NEAREST => {
                let rate = ((count - before) / (at - then)).max(0.0);
                rates.extend([(then, rate), (at, rate)]);
                from = Some((at, count));
            }
            // A point too near the last one continues its rate.
            Some(_) => rates.extend(rates.last().copied().map(|(_, rate)| (at, rate))),
        }
    }
    rates
}

#[cfg(test)]
mod tests;
