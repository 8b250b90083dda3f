//! Cost of a watch where nothing happens.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memctl::cgroup::{CgroupPath, Mount, tree};
use memctl::clock::now;
use memctl::watch::config::rule::RuleSpec;
use memctl::watch::members::Members;
use memctl::watch::options::WatchOptions;

use crate::{CGROUPS, M};

/// Time before which nothing is calm: a cgroup is calm once it didn't move for 30 s.
const CALM: Duration = Duration::from_secs(40);

/// Watches many cgroups in which nothing happens, and prints the cost once the watch has come to
/// rest.
pub fn real(memctl: &str, count: usize, seconds: u64) -> Result<()> {
    let batch = PathBuf::from(CGROUPS).join("batch");
    std::fs::create_dir_all(&batch)?;
    std::fs::write(batch.join("cgroup.subtree_control"), "+memory")?;
    for number in 0..count {
        let job = batch.join(format!("job-{number}"));
        std::fs::create_dir_all(&job)?;
        std::fs::write(job.join("memory.max"), (64 * M).to_string())?;
    }
    for has_metrics in [false, true] {
        at_rest(memctl, count, seconds, has_metrics)?;
    }
    for number in 0..count {
        std::fs::remove_dir(batch.join(format!("job-{number}")))?;
    }
    Ok(())
}

/// Watches the cgroups of [`real`]; `has_metrics` with metrics in a file and over a socket, which one
/// scraper reads whole every 15 s and another one byte per second.
fn at_rest(memctl: &str, count: usize, seconds: u64, has_metrics: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, socket) = (folder.path().join("memctl.prom"), folder.path().join("socket"));
    let listen = format!("unix:{}", socket.display());
    let mut command = Command::new(memctl);
    command.args(["watch", "batch/*", "--headroom", "10%", "--json"]).stdout(Stdio::piped());
    if has_metrics {
        command.arg("--metrics").arg(&file).args(["--metrics-listen", &listen]).stderr(Stdio::null());
    }
    let mut child = command.spawn()?;
    let said = child.stdout.take().context("its output")?;
    let (tell, started) = channel();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(said).lines().map_while(Result::ok);
        for _ in lines.filter(|line| line.contains(r#""event":"start""#)) {
            let _ = tell.send(());
        }
    });
    for _ in 0..count {
        started.recv_timeout(CALM).context("it doesn't watch all of them")?;
    }
    let _scrapers = has_metrics.then(|| {
        let scraper = |piece, pause| {
            let socket = socket.clone();
            std::thread::spawn(move || scrape(&socket, piece, Duration::from_secs(pause)))
        };
        (scraper(1 << 16, 15), scraper(1, 1))
    });
    std::thread::sleep(CALM);
    let before = Spending::of(child.id())?;
    std::thread::sleep(Duration::from_secs(seconds));
    let how = if has_metrics { ", with metrics" } else { "" };
    println!("{count} at rest{how}: {}", before.until_now(child.id())?);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)?;
    ensure!(child.wait()?.success(), "it ended badly");
    reader.join().ok().context("a thread that reads")?;
    Ok(())
}

/// Scrapes again and again, in pieces of `piece` bytes: pauses after each piece if that is one byte,
/// otherwise after each response. Ends with the watch.
fn scrape(socket: &Path, piece: usize, pause: Duration) -> std::io::Result<()> {
    loop {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
        let mut bytes = vec![0; piece];
        while stream.read(&mut bytes)? > 0 {
            if piece == 1 {
                std::thread::sleep(pause);
            }
        }
        std::thread::sleep(pause);
    }
}

/// Runs the engine alone, here and now, on a tree of files that only resemble cgroups: `count` of
/// them, of which the usage of `busy` changes ten times a second. Every 20 s the directories are
/// listed, as if for new ones.
pub fn synthetic(count: usize, busy: usize, seconds: u64) -> Result<()> {
    memctl::host::files::open_many_files();
    let tree = tempfile::tempdir_in("/dev/shm")?;
    let mount = Arc::new(Mount::whole(tree.path().to_owned(), true));
    let wanted = RuleSpec { headroom: Some("10%".parse()?), ..RuleSpec::default() };
    let rule = Rc::new(wanted.rule()?);
    let mut members = Members::new(true)?;
    for number in 0..count {
        let path = tree.path().join(format!("job-{number}"));
        std::fs::create_dir(&path)?;
        for (file, content) in [
            ("memory.current", "1048576\n"),
            ("memory.max", "67108864\n"),
            ("memory.high", "max\n"),
            ("memory.min", "0\n"),
            ("memory.low", "0\n"),
            ("memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"),
            ("memory.stat", "anon 0\nfile 1048576\ninactive_file 1048576\npgsteal_direct 0\n"),
        ] {
            std::fs::write(path.join(file), content)?;
        }
        let name = format!("/job-{number}").into();
        let id = std::fs::metadata(&path)?.ino();
        let located = Arc::new(CgroupPath { path: path.into(), name, mount: Arc::clone(&mount), id });
        members.add_unchecked(located, rule.clone()).map_err(|why| anyhow::anyhow!("job-{number}: {why}"))?;
    }
    let _stirring = Stirring::start(tree.path(), busy)?;
    let (began, calm, seen) = (now(), Cell::new(None), RefCell::new(None));
    let end = CALM + Duration::from_secs(seconds);
    let stop = || {
        let (time, own) = (now().saturating_sub(began), std::process::id());
        if time > CALM && calm.get().is_none() {
            calm.set(Spending::of(own).ok());
        }
        // Before the watch releases its memory.
        if time > end {
            *seen.borrow_mut() = calm.get().map(|before| before.until_now(own));
        }
        time > end
    };
    let mut listed = began;
    members.watch(WatchOptions {
        follows: true,
        select: Some(&mut |_, _| {
            if now().saturating_sub(listed) >= Duration::from_secs(20) {
                listed = now();
                std::hint::black_box(tree::walk(&mount).count());
            }
            Vec::new()
        }),
        ..WatchOptions::new(&stop, &mut |_| {})
    })?;
    let rest = count - busy;
    println!("{rest} at rest, {busy} busy, synthetic: {}", seen.take().context("it was measured")??);
    Ok(())
}

/// A process that changes the usage of imitated cgroups, until this is dropped.
struct Stirring(Child);

impl Stirring {
    fn start(tree: &Path, busy: usize) -> Result<Self> {
        let own = std::env::current_exe()?;
        let child = Command::new(own).arg("stir").arg(tree).arg(busy.to_string()).spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Stirring {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes the usage of the first `busy` imitated cgroups for ever: between 8 and 24 MiB, at a tenth
/// of that a second.
pub fn stir(tree: &Path, busy: usize) -> Result<()> {
    for tenths in 0_u64.. {
        for number in 0..busy {
            let place = (tenths + number as u64) % 160;
            let usage = 8 * M + place.min(160 - place) * M / 5;
            // In place: a reader must not find it empty.
            let mut file =
                OpenOptions::new().write(true).open(tree.join(format!("job-{number}/memory.current")))?;
            writeln!(file, "{usage:010}")?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Resources that a process used so far.
#[derive(Clone, Copy)]
struct Spending {
    at: Duration,
    cpu: f64,
    /// read(2) and the like, by the kernel's count.
    reads: f64,
    wakes: f64,
}

impl Spending {
    fn of(process: u32) -> Result<Self> {
        let number = |file: &str, key: &str| -> Result<f64> {
            let text = std::fs::read_to_string(format!("/proc/{process}/{file}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix(key)).context("a line of that name")?;
            Ok(line.trim().parse()?)
        };
        let wakes = number("status", "voluntary_ctxt_switches:")?;
        Ok(Self { at: now(), cpu: cpu_so_far(process)?, reads: number("io", "syscr:")?, wakes })
    }

    /// Returns the resources used per second since then, and held now.
    fn until_now(&self, process: u32) -> Result<String> {
        let after = Self::of(process)?;
        let time = after.at.saturating_sub(self.at).as_secs_f64();
        // VmLck in `status` has all addresses of what is locked as it comes into use; this has memory.
        let maps = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let kib = |key: &str| maps.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?").trim();
        Ok(format!(
            "{:.2}% of a CPU, {:.0} reads and {:.1} wakes a second, {} resident ({} of it anonymous), {} locked",
            100.0 * (after.cpu - self.cpu) / time,
            (after.reads - self.reads) / time,
            (after.wakes - self.wakes) / time,
            kib("Rss:"),
            kib("Anonymous:"),
            kib("Locked:"),
        ))
    }
}

/// Returns the CPU time of a process's threads in seconds, with nanosecond resolution:
/// /proc/PID/task/*/schedstat.
pub fn cpu_so_far(process: u32) -> Result<f64> {
    let mut nanos = 0.0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += stat.split(' ').next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanos / 1e9)
}
