//! State of systemd-oomd, from the output of its `oomctl`. That is a child process, since
//! systemd-oomd answers on D-Bus alone.
//!
//! `oomctl` runs only while systemd-oomd runs, since the call would start systemd-oomd
//! (`SystemdService=dbus-org.freedesktop.oom1.service`).

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::clock::timespec;

/// Possible paths of the program. `PATH` isn't searched, since a watch runs as root.
const PROGRAMS: [&str; 3] = ["/usr/bin/oomctl", "/bin/oomctl", "/run/current-system/sw/bin/oomctl"];

/// Time limit for an answer: D-Bus and systemd-oomd may be short of memory themselves.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of an answer, bytes; a monitored cgroup takes some 400.
const MAX_BYTES: usize = 1 << 20;

/// Returns the output of `oomctl`.
///
/// # Errors
/// Reason why there is no answer, as text.
pub(super) fn dump() -> Result<Vec<u8>, String> {
    let Some(program) = PROGRAMS.into_iter().find(|program| Path::new(program).exists()) else {
        return Err("oomctl isn't installed".into());
    };
    let mut command = Command::new(program);
    command.arg("--no-pager").current_dir("/");
    // Use no inherited locale, pager, colours or bus.
    command.env_clear().env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").env("SYSTEMD_PAGER", "");
    run(command, TIMEOUT).map_err(|why| format!("oomctl: {why}"))
}

/// Runs a program to its end and returns its output; kills the program after `timeout`.
fn run(mut command: Command, timeout: Duration) -> Result<Vec<u8>, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| in_words(&e))?;
    let ended = read(&mut child, Instant::now() + timeout);
    if ended.is_err() {
        // A failure means that the child has exited already.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| in_words(&e))?;
    let bytes = ended?;
    if status.success() { Ok(bytes) } else { Err(status.to_string()) }
}

fn read(child: &mut Child, until: Instant) -> Result<Vec<u8>, String> {
    let mut out = child.stdout.take().ok_or("no output")?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("timed out".into());
        }
        match poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&timespec(left))) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(in_words(&errno.into())),
        }
        match out.read(&mut chunk) {
            Ok(0) => break,
            Ok(got) => bytes.extend_from_slice(&chunk[..got]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(in_words(&e)),
        }
        if bytes.len() > MAX_BYTES {
            return Err("output too long".into());
        }
    }
    // The child may close its output without exiting.
    while child.try_wait().map_err(|e| in_words(&e))?.is_none() {
        if Instant::now() >= until {
            return Err("timed out".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(bytes)
}

fn in_words(error: &io::Error) -> String {
    error.kind().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Vec<u8>, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, Duration::from_millis(500))
    }

    #[test]
    fn an_answer_comes_in_time_or_not_at_all() {
        assert_eq!(shell("printf 'a\\377\\n'"), Ok(b"a\xff\n".to_vec()));
        assert_eq!(shell("echo a; exit 3"), Err("exit status: 3".into()));
        let began = Instant::now();
        assert_eq!(shell("exec sleep 20"), Err("timed out".into()));
        assert_eq!(shell("exec sleep 20 >/dev/null"), Err("timed out".into()));
        assert_eq!(shell("exec yes"), Err("output too long".into()));
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(run(Command::new("/nowhere"), Duration::from_secs(1)).is_err());
    }
}
