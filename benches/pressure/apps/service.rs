//! Programs of the applications' disk.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// The disk's root, and the folder that belongs to `app` there, as programs on it see it.
pub const DISK: &str = "/disk";
pub const DATA: &str = "/var/app";

/// Maximum time to a service's start and end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the service says.
const LOG: &str = "/service.log";

/// Returns what the last service said.
pub fn log() -> String {
    std::fs::read_to_string(LOG).unwrap_or_default()
}

/// Mounts on the disk what programs expect.
pub fn prepare() -> Result<()> {
    for dir in ["dev", "proc"] {
        ensure!(
            Command::new("mount")
                .args(["--bind", &format!("/{dir}"), &format!("{DISK}/{dir}")])
                .status()?
                .success(),
            "{DISK}/{dir} can't be mounted: is this the disk of tests/vm/apps?"
        );
    }
    std::fs::create_dir_all(format!("{DISK}/dev/shm"))?;
    ensure!(
        Command::new("mount").args(["-t", "tmpfs", "tmpfs", &format!("{DISK}/dev/shm")]).status()?.success(),
        "{DISK}/dev/shm can't be mounted"
    );
    Ok(())
}

/// Returns a command that runs a program of the disk as `app`, in a cgroup if one is given.
pub fn command(cgroup: Option<&Path>, words: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    // Not the setpriv of busybox, which knows no users.
    command.args([
        "-c",
        "[ -z \"$0\" ] || echo $$ >\"$0/cgroup.procs\"
         exec chroot \"$@\"",
    ]);
    command.arg(cgroup.unwrap_or(Path::new("")));
    command.args([DISK, "/usr/bin/setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]).args(words);
    command.stdin(Stdio::null());
    command
}

/// Runs a program to its end.
pub fn run(words: &[&str]) -> Result<()> {
    super::progress(&words.join(" "));
    let output = command(None, words).output()?;
    ensure!(
        output.status.success(),
        "{}: {}: {}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A service that runs.
pub struct Service {
    child: Child,
    ends: Signal,
}

impl Service {
    /// Starts a service that ends by a signal, and waits until it is ready.
    pub fn begin(cgroup: &Path, words: &[&str], ends: Signal, is_ready: &dyn Fn() -> bool) -> Result<Self> {
        let output = std::fs::File::create(LOG)?;
        let mut child = command(Some(cgroup), words).stdout(output.try_clone()?).stderr(output).spawn()?;
        let began = Instant::now();
        while !is_ready() {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("{}: {status}: {}", words.join(" "), log());
            }
            ensure!(began.elapsed() < PATIENCE, "{}: not ready in time", words.join(" "));
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Self { child, ends })
    }

    pub fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), self.ends).context("the service")?;
        self.child.wait()?;
        Ok(())
    }
}
