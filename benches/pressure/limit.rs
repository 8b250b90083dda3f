//! The application of a shape, started anew under a limit and without a controller.

use std::time::Duration;

use anyhow::Result;

use crate::guest::{Swapped, counter, stall};
use crate::{M, Shape, begin, end};

/// Times before the measurement, and of it.
const WARM_UP: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(60);

/// What a time of measuring showed.
struct Anew {
    batches: f64,
    /// Share of the time.
    stalled: f64,
    /// Milliseconds.
    worst: f64,
    /// Bytes per second that came back, of page cache and of anonymous memory.
    refaulted: [f64; 2],
}

fn measure(shape: &Shape, limit: Option<u64>) -> Result<Anew> {
    let (app, mut load) = begin(shape, "app", limit)?;
    std::thread::sleep(WARM_UP);
    load.ask("now")?;
    let counters = || -> Result<[u64; 3]> {
        let refaulted = |kind| counter(&app, kind).map(|pages| 4096 * pages);
        Ok([stall(&app)?, refaulted("workingset_refault_file")?, refaulted("workingset_refault_anon")?])
    };
    let before = counters()?;
    std::thread::sleep(MEASURED);
    let (batches, worst) = load.ask("now")?;
    let after = counters()?;
    end(shape, &app, load)?;
    let [stalled, file, anon] = [0, 1, 2].map(|index| (after[index] - before[index]) as f64);
    Ok(Anew {
        batches,
        stalled: stalled / MEASURED.as_micros() as f64,
        worst,
        refaulted: [file, anon].map(|bytes| bytes / MEASURED.as_secs_f64()),
    })
}

/// Returns the result under a limit in bytes, with that of a run before (`batches` per second) beside
/// it.
pub fn under(shape: &Shape, limit: u64, batches: f64) -> Result<String> {
    let Anew { batches: anew, stalled, worst, refaulted } = measure(shape, Some(limit))?;
    let [file, anon] = refaulted.map(|bytes| bytes / M as f64);
    Ok(format!(
        "with memory.max = {}M as suggested, started anew without a controller: {anew:.1} batches/s ({:.0}%), stalled \
         {:.1}% of the time, worst {worst:.1} ms, refaulted {file:.1} MiB/s of page cache, {anon:.1} of the rest",
        limit / M,
        100.0 * anew / batches,
        100.0 * stalled
    ))
}

/// Prints the results under limits of so many MiB, beside that without one.
pub fn compare(shape: &Shape, limits: &[u64]) -> Result<()> {
    let _swap = Swapped::on(shape.swap)?;
    let Anew { batches, worst, .. } = measure(shape, None)?;
    println!("{}: without a limit {batches:.1} batches/s, worst {worst:.1} ms", shape.name);
    for limit in limits {
        println!("  {}", under(shape, limit * M, batches)?.replace(" as suggested, started anew", ""));
    }
    Ok(())
}
