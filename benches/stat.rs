//! What reading many cgroups costs beside the least that it could: a C program that opens, reads and closes the same
//! files and looks at nothing (benches/reader.c).
//!
//! `stat pairs DIR READER` runs both in turns, each as a process of its own, on a tree that `stat make DIR COUNT` made, or
//! on a real hierarchy.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memctl::cgroup::{Located, Mount, Survey};
use memctl::reclaim::{Kind, Reclaimable};

const PAIRS: usize = 20;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("nothing measured: `make bench-stat` says on what"),
        ["make", tree, count] => make(Path::new(tree), count.parse()?)?,
        ["walk", tree] => walk(tree)?,
        ["pairs", tree, reader] => pairs(tree, reader)?,
        _ => bail!("usage: stat make DIR COUNT | walk DIR | pairs DIR READER"),
    }
    Ok(())
}

/// A tree like a host's: slices with services in them, and files of the kernel's lengths.
fn make(tree: &Path, count: usize) -> Result<()> {
    const SLICES: usize = 100;
    let mut stat = String::new();
    for key in 0..70 {
        let _ = writeln!(stat, "some_key_{key} {}", key * 4096);
    }
    stat += "inactive_file 4096\nactive_file 4096\ninactive_anon 0\nactive_anon 4096\nanon 4096\nfile 8192\n";
    let pressure =
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let fill = |dir: &Path| -> Result<()> {
        std::fs::create_dir_all(dir)?;
        for (file, text) in [
            ("memory.current", "1048576\n"),
            ("memory.stat", &stat),
            ("memory.pressure", pressure),
            ("memory.low", "0\n"),
            ("memory.min", "0\n"),
            ("memory.high", "max\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "max\n"),
        ] {
            std::fs::write(dir.join(file), text)?;
        }
        Ok(())
    };
    fill(tree)?;
    for number in 0..count {
        let slice = tree.join(format!("host-{}.slice", number % SLICES));
        if number < SLICES {
            fill(&slice)?;
        } else {
            fill(&slice.join(format!("service-number-{number}.service")))?;
        }
    }
    Ok(())
}

/// Reads a tree as `memctl stat -r` does, and tells how many cgroups there were and how much memory that took.
fn walk(tree: &str) -> Result<()> {
    let path = PathBuf::from(tree);
    let mount = Mount { point: path.clone(), root: "/".into(), read_only: true };
    let mut survey = Survey::new(usize::MAX);
    let readings = survey.of(&Located { path, name: "/".into(), mount });
    let reclaimable: u64 = readings
        .iter()
        .map(|reading| Reclaimable::new(Kind::All, &reading.stat, &reading.conditions).bytes())
        .sum();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!("{} cgroups, {reclaimable} bytes reclaimable, peak {peak}", readings.len());
    Ok(())
}

fn pairs(tree: &str, reader: &str) -> Result<()> {
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    let run = |words: &[&str]| -> Result<(f64, String)> {
        let began = Instant::now();
        let output =
            Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().context("run it")?;
        ensure!(output.status.success(), "{words:?}: {}", output.status);
        Ok((began.elapsed().as_secs_f64() * 1e3, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    };
    let (mut ours, mut least, mut said) = (Vec::new(), Vec::new(), (String::new(), String::new()));
    for pair in 0..=PAIRS {
        let (mut us, mut c) = ((0.0, String::new()), (0.0, String::new()));
        for turn in 0..2 {
            if (pair + turn) % 2 == 0 {
                us = run(&[&own, "walk", tree])?;
            } else {
                c = run(&[reader, tree])?;
            }
        }
        // The first of each pays for what is cold.
        if pair > 0 {
            ours.push(us.0);
            least.push(c.0);
        }
        said = (us.1, c.1);
    }
    let middle = |numbers: &[f64]| {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let ratios: Vec<f64> = ours.iter().zip(&least).map(|(us, c)| us / c).collect();
    println!("memctl's survey  {:>8.1} ms  {}", middle(&ours), said.0);
    println!("minimal reader   {:>8.1} ms  {}", middle(&least), said.1);
    println!(
        "ratio of medians {:.2}, median of {PAIRS} pairs {:.2}",
        middle(&ours) / middle(&least),
        middle(&ratios)
    );
    Ok(())
}
