//! memctl inside a cgroup namespace: this test binary, run again under another name.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use crate::bed::{Ran, memctl, root};

const MARK: &str = "memctl-test-namespace";

/// Runs memctl with a cgroup for the root of all that it can see.
pub fn run_inside(cgroup: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.arg(MARK).arg(cgroup).args(words).output().expect("it runs").into()
}

/// The namespace that this process was started for, if it was.
pub fn asked_for() -> Option<Inside> {
    let mut args = std::env::args().skip(1);
    (args.next()? == MARK).then_some(())?;
    Some(Inside { cgroup: PathBuf::from(args.next()?), words: args.collect() })
}

pub struct Inside {
    cgroup: PathBuf,
    words: Vec<String>,
}

impl Inside {
    /// Enters the cgroup, makes a namespace there, mounts what it shows, and becomes memctl.
    pub fn run(self) {
        std::fs::write(self.cgroup.join("cgroup.procs"), "0").expect("enter the cgroup");
        // SAFETY: only the tables of descriptors are dangerous to unshare, and they stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP | UnshareFlags::NEWNS) }
            .expect("make the namespaces");
        // The same file system can't be mounted over itself. Nothing else sees this.
        rustix::mount::unmount(root(), UnmountFlags::DETACH).expect("unmount the whole hierarchy");
        rustix::mount::mount("cgroup2", root(), "cgroup2", MountFlags::empty(), c"")
            .expect("mount the hierarchy as it is seen from here");
        panic!("become memctl: {}", memctl(self.words).exec());
    }
}
