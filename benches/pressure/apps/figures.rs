//! What a time of measuring showed, and rounds of that beside each other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::latency::Latencies;
use crate::M;
use crate::guest::{counter, number, stall};

/// What a time of measuring showed.
pub struct Figures {
    pub requests: Latencies,
    time: Duration,
    stalled: Duration,
    /// Bytes.
    current: u64,
    direct: u64,
    refaulted: u64,
    /// Seconds of the controller.
    pub cpu: f64,
}

const HEAD: [&str; 10] = [
    "USAGE M",
    "REQUESTS/s",
    "P50 ms",
    "P99 ms",
    "P99.9 ms",
    "MAX ms",
    "DIRECT M",
    "STALL ms",
    "REFAULT M",
    "CPU %",
];

impl Figures {
    pub fn head() -> String {
        HEAD.map(|name| format!("{name:>11}")).join("")
    }

    /// Returns the figures in the order of the columns.
    fn row(&self) -> [f64; HEAD.len()] {
        let [half, most, nearly, worst] = self.requests.quantiles([0.5, 0.99, 0.999, 1.0]);
        let seconds = self.time.as_secs_f64();
        let mib = |bytes: u64| bytes as f64 / M as f64;
        [
            mib(self.current),
            self.requests.count() as f64 / seconds,
            half,
            most,
            nearly,
            worst,
            mib(self.direct),
            self.stalled.as_secs_f64() * 1e3,
            mib(self.refaulted),
            100.0 * self.cpu / seconds,
        ]
    }
}

/// Counters of a cgroup: its stall in microseconds, and bytes that it reclaimed itself, and refaulted.
fn counters(at: &Path) -> Result<[u64; 3]> {
    let refaulted = counter(at, "workingset_refault_file")? + counter(at, "workingset_refault_anon")?;
    Ok([stall(at)?, counter(at, "pgsteal_direct")?, refaulted])
}

/// A time of measuring that began.
pub struct Meter {
    at: PathBuf,
    began: (Instant, SystemTime),
    counters: [u64; 3],
}

impl Meter {
    pub fn begin(at: &Path) -> Result<Self> {
        Ok(Self { at: at.to_owned(), began: (Instant::now(), SystemTime::now()), counters: counters(at)? })
    }

    /// Returns the figures up to now, whose requests are known when the load ended.
    pub fn end(self) -> Result<(Figures, [SystemTime; 2])> {
        let [stalled, direct, refaulted] = counters(&self.at)?;
        let [stalled_before, direct_before, refaulted_before] = self.counters;
        let figures = Figures {
            requests: Latencies::default(),
            time: self.began.0.elapsed(),
            stalled: Duration::from_micros(stalled - stalled_before),
            current: number(&self.at, "memory.current")?,
            direct: direct - direct_before,
            refaulted: refaulted - refaulted_before,
            cpu: 0.0,
        };
        Ok((figures, [self.began.1, SystemTime::now()]))
    }
}

/// Figures of each round, by name, in the order in which the names came up.
#[derive(Default)]
pub struct Rounds(Vec<(String, Vec<[f64; HEAD.len()]>)>);

impl Rounds {
    /// Adds a round's figures, and prints them.
    pub fn add(&mut self, name: &str, figures: &Figures) {
        let row = figures.row();
        println!("{name:<14}{}", row.map(|figure| format!("{figure:>11.1}")).join(""));
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, rows)) => rows.push(row),
            None => self.0.push((name.to_owned(), vec![row])),
        }
    }

    /// Prints the mean of each column, and its least and most.
    pub fn tell(&self) {
        println!("\nmean, and the least and the most");
        for (name, rows) in &self.0 {
            for (column, of) in HEAD.iter().enumerate() {
                let figures = || rows.iter().map(|row| row[column]);
                let mean = figures().sum::<f64>() / rows.len() as f64;
                let (least, most) = (figures().fold(f64::MAX, f64::min), figures().fold(f64::MIN, f64::max));
                println!("{name:<14} {of:>11} {mean:>9.1}  ({least:.1} to {most:.1}) of {}", rows.len());
            }
        }
        println!();
    }
}
