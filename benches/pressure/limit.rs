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
        let [file, anon] = ["workingset_refault_file", "workingset_refault_anon"];
        Ok([stall(&app)?, counter(&app, file)?, counter(&app, anon)?])
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

impl Anew {
    /// Returns the result, with that of a run before (`batches` per second) beside it.
    fn beside(&self, batches: f64) -> String {
        let [file, anon] = self.refaulted.map(|bytes| bytes / M as f64);
        format!(
            "{:.1} batches/s ({:.0}%), stalled {:.1}% of the time, worst {:.1} ms, refaulted {file:.1} MiB/s of page \
             cache, {anon:.1} of the rest",
            self.batches,
            100.0 * self.batches / batches,
            100.0 * self.stalled,
            self.worst
        )
    }
}

/// Returns the result under a limit in bytes that was suggested.
pub fn under(shape: &Shape, limit: u64, batches: f64) -> Result<String> {
    let result = measure(shape, Some(limit))?.beside(batches);
    let limit = limit / M;
    Ok(format!("with memory.max = {limit}M as suggested, started anew without a controller: {result}"))
}

/// Prints the results under limits of so many MiB, beside that without one.
pub fn compare(shape: &Shape, limits: &[u64]) -> Result<()> {
    let _swap = Swapped::on(shape.swap)?;
    let Anew { batches, worst, .. } = measure(shape, None)?;
    println!("{}: without a limit {batches:.1} batches/s, worst {worst:.1} ms", shape.name);
    for limit in limits {
        println!("  with memory.max = {limit}M: {}", measure(shape, Some(limit * M))?.beside(batches));
    }
    Ok(())
}
