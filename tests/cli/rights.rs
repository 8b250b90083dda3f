//! memctl with other rights than those of root or of a user: this test binary, run again under
//! another name.

use std::ffi::c_long;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::harness::{Finished, memctl};

const MARK: &str = "memctl-test-rights";

/// The unprivileged user of the guest.
pub const APP: u32 = 1000;

/// The capability to write to files whatever their mode.
const OVERRIDE: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// A change of the rights of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Root without `CAP_DAC_OVERRIDE`, as in a container.
    Without,
    /// A user with that capability alone.
    With,
    /// Any process under a security module (Landlock) that lets it write to no file.
    Confined,
}

impl Change {
    const ALL: [(&'static str, Self); 3] =
        [("without", Self::Without), ("with", Self::With), ("confined", Self::Confined)];
}

/// Runs memctl after changes of its rights.
pub fn run_with(changes: &[Change], words: &[&str]) -> Finished {
    let name = |&change: &Change| Change::ALL.iter().find(|(_, one)| *one == change).expect("listed").0;
    let changes: Vec<_> = changes.iter().map(name).collect();
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args([MARK, &changes.join(",")]).args(words).current_dir("/").output().expect("it runs").into()
}

/// Returns the changes for which this process was started, and the words for memctl, if it was.
pub fn asked_for() -> Option<(Vec<Change>, Vec<String>)> {
    // Other instances of this binary may have arguments that aren't text.
    (std::env::args_os().nth(1)? == MARK).then_some(())?;
    let mut args = std::env::args().skip(2);
    let named = |name: &str| Change::ALL.iter().find(|(one, _)| *one == name).expect("a change").1;
    let changes = args.next()?.split(',').map(named).collect();
    Some((changes, args.collect()))
}

/// Makes the changes, and becomes memctl.
pub fn become_memctl((changes, words): (Vec<Change>, Vec<String>)) -> ! {
    for change in changes {
        match change {
            Change::Without => {
                rustix::thread::remove_capability_from_bounding_set(OVERRIDE).expect("drop it");
            }
            Change::With => become_user(),
            Change::Confined => confine(),
        }
    }
    panic!("become memctl: {}", memctl(words).exec());
}

fn become_user() {
    use rustix::thread::{configure_capability_in_ambient_set, set_capabilities, set_keep_capabilities};
    set_keep_capabilities(true).expect("keep them");
    rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(APP)).expect("the group");
    rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(APP)).expect("the user");
    let sets = CapabilitySets { effective: OVERRIDE, permitted: OVERRIDE, inheritable: OVERRIDE };
    set_capabilities(None, sets).expect("one capability");
    configure_capability_in_ambient_set(OVERRIDE, true).expect("across the execve");
}

/// Lets this process open no file for writing, by Landlock (since 5.13).
fn confine() {
    /// `struct landlock_ruleset_attr`, include/uapi/linux/landlock.h.
    #[repr(C)]
    struct Ruleset {
        handled_access_fs: u64,
    }
    const WRITE_FILE: u64 = 1 << 1;
    rustix::thread::set_no_new_privs(true).expect("a condition of Landlock");
    let ruleset = Ruleset { handled_access_fs: WRITE_FILE };
    // SAFETY: the kernel reads a structure of the size given, and both calls leave memory alone.
    let answer = unsafe {
        let size = size_of::<Ruleset>();
        let rules: c_long = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size, 0);
        assert!(rules >= 0, "Landlock: {}", std::io::Error::last_os_error());
        libc::syscall(libc::SYS_landlock_restrict_self, rules, 0)
    };
    assert_eq!(answer, 0, "Landlock: {}", std::io::Error::last_os_error());
}
