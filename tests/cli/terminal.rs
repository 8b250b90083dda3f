//! memctl on a pseudo-terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::memctl;

/// Returns all that memctl writes to a terminal of this many columns.
pub fn show(words: &[&str], columns: u16) -> String {
    let (mut master, slave) = pair(columns);
    let stderr = slave.try_clone().expect("a second descriptor");
    let mut child =
        memctl(words).env("TERM", "xterm").stdout(slave).stderr(stderr).spawn().expect("memctl starts");
    let mut screen = Vec::new();
    let mut chunk = [0; 4096];
    // A terminal ends with EIO once its other end is closed.
    while let Ok(read @ 1..) = master.read(&mut chunk) {
        screen.extend_from_slice(&chunk[..read]);
    }
    child.wait().expect("memctl ends");
    String::from_utf8(screen).expect("UTF-8").replace('\r', "")
}

/// Opens a terminal of this many columns: the end with keyboard and screen, and the end for
/// programs.
pub fn pair(columns: u16) -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
    let name = ptsname(&master, Vec::new()).expect("its name");
    let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("open it");
    tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .expect("set its size");
    (File::from(master), slave)
}

/// Returns the text without its colour sequences.
pub fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}
