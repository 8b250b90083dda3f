//! Cost of reading many cgroups, beside a lower bound: a C program that opens, reads and closes the
//! same files and parses nothing (benches/reader.c).
//!
//! `stat compare DIR READER [COMMAND]...` runs both in turns, and any other commands given, each as
//! a process of its own, on a tree that `stat make DIR COUNT` made, or on a real hierarchy. Ratios
//! are medians of the rounds'.

#![allow(clippy::disallowed_methods, reason = "reads numbers of its own tree")]

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use memctl::cgroup::{CgroupPath, Mount, Survey};
use memctl::kind::Kind;
use memctl::reclaim::Reclaimable;

const ROUNDS: usize = 20;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("nothing measured: `make bench-stat` says on what"),
        ["make", tree, count] => make(Path::new(tree), count.parse()?)?,
        ["walk", tree, jobs] => walk(tree, jobs.parse()?)?,
        ["compare", tree, reader, ref commands @ ..] => compare(tree, reader, commands)?,
        _ => bail!("usage: stat make DIR COUNT | walk DIR JOBS | compare DIR READER [COMMAND]..."),
    }
    Ok(())
}

/// Makes a tree like a host's: slices with services in them, and files of the kernel's lengths.
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

/// Reads a tree as `memctl stat -r` does, and prints the number of cgroups and the memory used.
fn walk(tree: &str, jobs: usize) -> Result<()> {
    let path = PathBuf::from(tree);
    let mount = Arc::new(Mount::whole(path.clone(), true));
    let id = std::fs::metadata(tree)?.ino();
    let survey = Survey::new(usize::MAX, jobs);
    let readings = survey.of(&CgroupPath { path: path.into(), name: "/".into(), mount, id });
    let reclaimable: u64 = readings
        .iter()
        .map(|reading| Reclaimable::new(Kind::All, &reading.stat(), &reading.conditions).bytes())
        .sum();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!("{} cgroups, {reclaimable} bytes reclaimable, peak {peak}", readings.len());
    Ok(())
}

/// A contender: its name and command.
type Contender = (&'static str, Vec<String>);

/// Runs all contenders in turns, and prints the time of each beside the first, the minimal reader.
fn compare(tree: &str, reader: &str, commands: &[&str]) -> Result<()> {
    const FILES: &str = "-name memory.current -o -name memory.stat -o -name memory.pressure -o -name memory.low \
        -o -name memory.min -o -name memory.high -o -name memory.max -o -name memory.swap.current \
        -o -name memory.swap.max";
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let pipe = format!("find {tree} {FILES} | xargs cat >/dev/null 2>&1; :");
    let mut contenders: Vec<Contender> = vec![
        ("minimal reader", words(&[reader, tree])),
        ("memctl's survey", words(&[&own, "walk", tree, "1"])),
        ("with --jobs 2", words(&[&own, "walk", tree, "2"])),
    ];
    let there = Command::new("sh").args(["-c", "command -v find && command -v xargs"]).output()?;
    if there.status.success() {
        contenders.push(("find | xargs cat", words(&["sh", "-c", &pipe])));
    }
    for command in commands {
        let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        let name = match words.last().map(String::as_str) {
            Some("-V") => "memctl's start",
            Some("-r") => "memctl stat -r",
            _ => "systemd-cgtop",
        };
        contenders.push((name, words));
    }
    let mut took = vec![Vec::new(); contenders.len()];
    let mut said = vec![String::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for turn in 0..contenders.len() {
            // The first in one round is the last in the next.
            let place = if round % 2 == 0 { turn } else { contenders.len() - 1 - turn };
            let words = &contenders[place].1;
            let began = Instant::now();
            let output =
                Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().context("run it")?;
            let time = began.elapsed().as_secs_f64() * 1e3;
            ensure!(output.status.success(), "{words:?}: {}", output.status);
            // The first round pays for cold caches.
            if round > 0 {
                took[place].push(time);
            }
            String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut said[place]);
        }
    }
    let middle = |numbers: &[f64]| {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    for (place, (name, _)) in contenders.iter().enumerate() {
        let ratios: Vec<f64> = took[place].iter().zip(&took[0]).map(|(one, least)| one / least).collect();
        let remark = if said[place].lines().count() == 1 { said[place].as_str() } else { "" };
        println!("{name:<17}{:>8.1} ms {:>6.2}  {remark}", middle(&took[place]), middle(&ratios));
    }
    Ok(())
}
