//! memctl inside a cgroup namespace, for which this test binary is run again under another name, and
//! inside a user namespace.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::harness::{Cgroup, Finished, memctl, root};
use crate::rights::APP;

const MARK: &str = "memctl-test-namespace";

/// A cgroup namespace, kept by a process of its own, so that its root can have cgroups below it.
pub struct Namespace {
    keeper: Child,
    /// Cgroup within it in which memctl runs.
    home: PathBuf,
}

impl Namespace {
    /// Creates a namespace whose root is `cgroup`, which has nothing below it yet. `home` is
    /// created in it.
    pub fn new(cgroup: &Cgroup, home: &str) -> (Self, Cgroup) {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args([MARK, "keep"]).arg(cgroup.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut keeper = command.spawn().expect("it runs");
        let said =
            keeper.stdout.as_mut().expect("its output").read(&mut [0]).expect("it says when it is there");
        assert_eq!(said, 1, "it made the namespace");
        // Moved away: a cgroup with processes passes no controllers on.
        std::fs::write(root().join("cgroup.procs"), keeper.id().to_string()).expect("it leaves");
        let home = cgroup.child(home);
        (Self { keeper, home: home.path().to_owned() }, home)
    }

    /// Runs memctl in the namespace.
    pub fn run(&self, words: &[&str]) -> Finished {
        self.run_as("join", words)
    }

    /// Runs memctl in the namespace without a mount of it.
    pub fn run_with_the_hosts_mount(&self, words: &[&str]) -> Finished {
        self.run_as("visit", words)
    }

    fn run_as(&self, what: &str, words: &[&str]) -> Finished {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args([MARK, what]).arg(&self.home).arg(format!("/proc/{}/ns/cgroup", self.keeper.id()));
        command.args(words).output().expect("it runs").into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.keeper.kill().and_then(|()| self.keeper.wait()).expect("it ends");
    }
}

/// Runs memctl with a cgroup as the root of all that it can see.
pub fn run_inside(cgroup: &Path, words: &[&str]) -> Finished {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args([MARK, "new"]).arg(cgroup).args(words).output().expect("it runs").into()
}

/// Options of unshare(1) for a user namespace in which the unprivileged user is root.
pub const ROOT: &[&str] = &["-r"];

/// The same for a namespace without a mapping, in which nobody has an ID.
pub const NOBODY: &[&str] = &[];

/// Runs memctl as the unprivileged user in a user namespace.
pub fn run_as_a_namespaces(user: &[&str], words: &[&str]) -> Finished {
    // Debian's own switch, which newer kernels have on.
    let switch = Path::new("/proc/sys/kernel/unprivileged_userns_clone");
    if switch.exists() {
        std::fs::write(switch, "1").expect("allow user namespaces");
    }
    let mut command = Command::new("/bin/busybox");
    command.args(["unshare", "-U"]).args(user).arg(memctl([""; 0]).get_program()).args(words);
    command.uid(APP).gid(APP).current_dir("/").output().expect("it runs").into()
}

/// Returns the namespace for which this process was started, if it was.
pub fn asked_for() -> Option<Inside> {
    // Other instances of this binary may have arguments that aren't text.
    (std::env::args_os().nth(1)? == MARK).then_some(())?;
    let mut args = std::env::args().skip(1);
    (args.next()? == MARK).then_some(())?;
    let what = args.next()?;
    let cgroup = PathBuf::from(args.next()?);
    let joins = matches!(&*what, "join" | "visit").then(|| args.next().map(PathBuf::from)).flatten();
    Some(Inside { keeps: what == "keep", mounts: what != "visit", cgroup, joins, words: args.collect() })
}

pub struct Inside {
    keeps: bool,
    mounts: bool,
    cgroup: PathBuf,
    joins: Option<PathBuf>,
    words: Vec<String>,
}

impl Inside {
    /// Enters the cgroup, creates or joins a namespace there, mounts its hierarchy, and becomes
    /// memctl.
    pub fn run(self) {
        std::fs::write(self.cgroup.join("cgroup.procs"), "0").expect("enter the cgroup");
        if self.keeps {
            unshare(UnshareFlags::NEWCGROUP);
            println!();
            loop {
                std::thread::park();
            }
        }
        match &self.joins {
            None => unshare(UnshareFlags::NEWCGROUP | UnshareFlags::NEWNS),
            Some(link) => {
                let namespace = std::fs::File::open(link).expect("the namespace");
                let kind = Some(LinkNameSpaceType::ControlGroup);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("join it");
                unshare(UnshareFlags::NEWNS);
            }
        }
        if self.mounts {
            // A file system can't be mounted over itself. No other process sees this unmount.
            rustix::mount::unmount(root(), UnmountFlags::DETACH).expect("unmount the whole hierarchy");
            rustix::mount::mount("cgroup2", root(), "cgroup2", MountFlags::empty(), c"")
                .expect("mount the hierarchy as it is seen from here");
        }
        panic!("become memctl: {}", memctl(self.words).exec());
    }
}

fn unshare(what: UnshareFlags) {
    // SAFETY: unsharing is dangerous only for descriptor tables, which stay shared.
    unsafe { rustix::thread::unshare_unsafe(what) }.expect("make the namespaces");
}
