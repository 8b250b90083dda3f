//! The harness of the cases: cgroups made for one case, and runs of memctl on them.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::workload::{Work, Workload};

pub const M: u64 = 1 << 20;

/// Returns the cgroup2 mount of a guest.
pub fn root() -> PathBuf {
    PathBuf::from("/sys/fs/cgroup")
}

/// A cgroup and the processes in it. Dropping it removes both.
pub struct Cgroup {
    path: PathBuf,
    name: String,
    work: RefCell<Vec<Workload>>,
    files: RefCell<Vec<PathBuf>>,
}

impl Cgroup {
    /// Creates a cgroup below the root.
    pub fn new(name: &str) -> Self {
        Self::at(name.to_owned())
    }

    /// Creates a cgroup below this one, which passes the memory controller on to it.
    pub fn child(&self, name: &str) -> Self {
        self.write("cgroup.subtree_control", "+memory");
        Self::at(format!("{}/{name}", self.name))
    }

    /// Creates a cgroup below the root with a name of these bytes.
    pub fn of_bytes(name: &[u8]) -> Self {
        Self::make(root().join(OsStr::from_bytes(name)), String::from_utf8_lossy(name).into_owned())
    }

    fn at(name: String) -> Self {
        Self::make(root().join(&name), name)
    }

    fn make(path: PathBuf, name: String) -> Self {
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
        Self { path, name, work: RefCell::default(), files: RefCell::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name without the mount and without a leading `/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts a process in it that uses memory.
    pub fn uses(&self, work: &Work) -> &Self {
        let work = Workload::start(work, &self.path);
        self.files.borrow_mut().push(work.file());
        self.work.borrow_mut().push(work);
        self.await_counters();
        self
    }

    /// Waits until `memory.stat`, here and above, has caught up with `memory.current`: on 7.x it
    /// can lag by megabytes until the kernel folds it, each 2 s, and the results of a case are
    /// judged by it. The wait is limited: some charged memory appears in no counter.
    fn await_counters(&self) {
        const COUNTED: [&str; 7] = ["anon", "file", "slab", "kernel_stack", "pagetables", "percpu", "sock"];
        let until = Instant::now() + Duration::from_secs(3);
        for path in self.path.ancestors().take_while(|path| *path != root()) {
            let lags = || -> Option<bool> {
                let read = |file: &str| std::fs::read_to_string(path.join(file)).ok();
                let (current, stat) = (read("memory.current")?, read("memory.stat")?);
                let counted: u64 = stat
                    .lines()
                    .filter_map(|line| line.split_once(' '))
                    .filter(|(key, _)| COUNTED.contains(key))
                    .filter_map(|(_, value)| value.parse::<u64>().ok())
                    .sum();
                Some(current.trim().parse::<u64>().ok()?.abs_diff(counted) > M)
            };
            while lags() == Some(true) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Ends all processes in it. Page cache stays.
    pub fn rest(&self) {
        self.work.borrow_mut().clear();
    }

    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file))
            .unwrap_or_else(|e| panic!("read {}/{file}: {e}", self.name))
    }

    pub fn write(&self, file: &str, text: &str) {
        self.try_write(file, text).unwrap_or_else(|e| panic!("write {text} to {}/{file}: {e}", self.name));
    }

    pub fn try_write(&self, file: &str, text: &str) -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).open(self.path.join(file))?;
        file.write(text.as_bytes()).map(drop)
    }

    pub fn current(&self) -> u64 {
        self.read("memory.current").trim().parse().expect("a number")
    }

    /// Asserts that nothing was reclaimed since a usage of `before`, within the kernel's batches of
    /// charges.
    #[track_caller]
    pub fn assert_untouched(&self, before: u64) {
        let current = self.current();
        assert!(current.abs_diff(before) <= M, "{before} before, {current} now");
        assert_eq!(self.stolen(), 0);
    }

    /// Returns a value of memory.stat; 0 where this kernel doesn't have it.
    pub fn stat(&self, key: &str) -> u64 {
        let text = self.read("memory.stat");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a number"))
    }

    /// Returns the bytes that proactive writers reclaimed, by the kernel's own counter.
    pub fn stolen(&self) -> u64 {
        let proactive = self.stat("pgsteal_proactive")
            - self.stat("pgdemote_proactive").min(self.stat("pgsteal_proactive"));
        (if self.read("memory.stat").contains("pgsteal_proactive") {
            proactive
        } else {
            self.stat("pgsteal_direct")
        }) * 4096
    }

    /// Returns the same after the kernel has folded its counters: after its 2 s, and the timer's
    /// delay.
    pub fn stolen_settled(&self) -> u64 {
        std::thread::sleep(Duration::from_millis(2600));
        self.stolen()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.rest();
        for file in self.files.borrow().iter() {
            let _ = std::fs::remove_file(file);
        }
        // A cgroup can't be removed right after its last process left.
        let until = Instant::now() + Duration::from_secs(5);
        while let Err(e) = std::fs::remove_dir(&self.path) {
            if e.kind() == std::io::ErrorKind::NotFound || Instant::now() > until || std::thread::panicking()
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns a command that runs memctl with these words.
pub fn memctl<I: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("memctl"));
    // Colour settings of the tests' environment are not the users'.
    command.args(words).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CLICOLOR");
    command
}

/// Output and exit status of memctl; every case must check all three parts.
#[derive(Debug)]
pub struct Finished {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs memctl to its end.
pub fn run(words: &[&str]) -> Finished {
    memctl(words).output().expect("memctl runs").into()
}

/// Runs memctl with words that need not be UTF-8.
pub fn run_bytes(words: &[&[u8]]) -> Finished {
    memctl(words.iter().map(|word| OsStr::from_bytes(word))).output().expect("memctl runs").into()
}

/// Runs memctl and returns its report, which must be one line of JSON on stdout.
pub fn report(words: &[&str], status: i32) -> Value {
    let words: Vec<_> = words.iter().copied().chain(["--json"]).collect();
    let ran = run(&words);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(status), ""), "{words:?}: {}", ran.stdout);
    parse(&ran.stdout)
}

/// Parses the single line of JSON.
pub fn parse(stdout: &str) -> Value {
    assert_eq!(stdout.matches('\n').count(), 1, "one line: {stdout:?}");
    serde_json::from_str(stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Returns a number of the report.
pub fn number(report: &Value, key: &str) -> i64 {
    report[key].as_i64().unwrap_or_else(|| panic!("{key} in {report}"))
}

/// Asserts the form of an error: nothing on stdout, one line that names the subject, perhaps a
/// hint.
#[track_caller]
pub fn assert_fails(words: &[&str], status: i32, line: &str) -> Finished {
    refused(run(words), words, status, line)
}

/// Asserts the form of an error in the output of an earlier run.
#[track_caller]
pub fn refused(ran: Finished, words: &[&str], status: i32, line: &str) -> Finished {
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(status), ""), "{words:?}: {}", ran.stderr);
    assert_eq!(lines.first().copied(), Some(line), "{words:?}");
    assert!(
        lines.len() == 1 || lines.len() == 2 && lines[1].starts_with("hint: "),
        "{words:?}: {}",
        ran.stderr
    );
    ran
}

/// Asserts that `got` is within 3% of `wanted`, or within a large folio.
#[track_caller]
pub fn assert_close(what: &str, got: u64, wanted: u64) {
    let off = got.abs_diff(wanted);
    assert!(off <= (wanted / 100 * 3).max(2 * M), "{what}: {got} instead of {wanted}, {off} off");
}

/// A file system of 64 KiB.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, c"size=64k").expect("mount it");
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it with a file.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).expect("a file");
        while std::io::Write::write(&mut filler, &[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    /// Removes the file that fills it.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("make room");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// Returns a size in `/proc/PID/status`, in KiB.
#[track_caller]
pub fn status_kib(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse().unwrap_or_else(|e| panic!("{key}: {e}: {status}"))
}
