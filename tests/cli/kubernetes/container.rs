//! Containers of other pods: only their cgroups, which the kubelet and its runtime make in the same
//! way, with a process in them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::pod::{LOGS_OF_CONTAINERS, LOGS_OF_PODS};
use crate::harness::root;
use crate::systemd::output;

/// The kubelet's `cgroupDriver`: who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// systemd, which is asked for slices and scopes.
    Systemd,
    /// Nobody but the kubelet and the runtime, which make directories.
    Cgroupfs,
}

/// A container of a Burstable pod. Dropping it ends its process and removes the pod.
pub struct Container {
    path: PathBuf,
    id: String,
    shell: Child,
    data: PathBuf,
    /// Entries of the kubelet's folders: of its pod, and of itself.
    names: [PathBuf; 2],
}

impl Container {
    /// Starts the container `batch/web-NUMBER/app` with a limit, which fills `used` bytes with page
    /// cache.
    pub fn start(driver: Driver, number: u8, limit: u64, used: u64) -> Self {
        Self::start_in("batch", driver, number, limit, used)
    }

    /// Starts a container in another namespace.
    pub fn start_in(namespace: &str, driver: Driver, number: u8, limit: u64, used: u64) -> Self {
        let id = format!("{number:02x}").repeat(32);
        let uid = format!("{number:02x}000000-0000-4000-8000-000000000000");
        let data = PathBuf::from(format!("/data/{id}"));
        std::fs::File::create(&data).and_then(|file| file.set_len(used)).expect("make a file on /data");
        let fills = format!("cat {} >/dev/null; echo filled; exec sleep infinity", data.display());
        let (path, mut command) = match driver {
            Driver::Systemd => {
                let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
                let scope = format!("cri-containerd-{id}.scope");
                let mut command = Command::new("systemd-run");
                command.args(["--quiet", "--scope", "--slice", &slice, "--unit", &scope]);
                command.args(["--property", &format!("MemoryMax={limit}"), "sh", "-c", &fills]);
                (root().join("kubepods.slice/kubepods-burstable.slice").join(slice).join(scope), command)
            }
            Driver::Cgroupfs => {
                let path = root().join("kubepods/burstable").join(format!("pod{uid}")).join(&id);
                make(&path);
                std::fs::write(path.join("memory.max"), limit.to_string()).expect("set its limit");
                let mut command = Command::new("sh");
                command.args(["-c", &format!("echo $$ >{}/cgroup.procs; {fills}", path.display())]);
                (path, command)
            }
        };
        let names = [
            PathBuf::from(format!("{LOGS_OF_PODS}/{namespace}_web-{number}_{uid}/app")),
            PathBuf::from(format!("{LOGS_OF_CONTAINERS}/web-{number}_{namespace}_app-{id}.log")),
        ];
        std::fs::create_dir_all(&names[0]).expect("make its folder of logs");
        std::fs::create_dir_all(LOGS_OF_CONTAINERS).expect("make a folder");
        let log = names[0].join("0.log");
        std::os::unix::fs::symlink(log, &names[1]).expect("make its link to the log");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut shell = command.spawn().expect("start a container");
        let said = shell.stdout.as_mut().expect("its output").read(&mut [0; 7]).expect("its output");
        assert_eq!(said, 7, "it filled its page cache");
        Self { path, id, shell, data, names }
    }

    /// Returns the word that names it to memctl.
    pub fn word(&self) -> String {
        format!("container:{}", self.id)
    }

    /// Returns its name without the mount.
    pub fn name(&self) -> String {
        format!("/{}", self.path.strip_prefix(root()).expect("below the root").display())
    }

    pub fn read(&self, file: &str) -> String {
        let path = self.path.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    }

    pub fn current(&self) -> u64 {
        self.read("memory.current").trim().parse().expect("a number")
    }

    /// Reads a file of `bytes` once more, by a process in it.
    pub fn reads(&self, bytes: u64) {
        let data = self.data.with_extension("more");
        std::fs::File::create(&data).and_then(|file| file.set_len(bytes)).expect("make a file on /data");
        let procs = self.path.join("cgroup.procs");
        let words = format!("echo $$ >{}; cat {} >/dev/null", procs.display(), data.display());
        output(Command::new("sh").args(["-c", &words]));
    }

    /// Waits until its usage is as `holds` says.
    #[track_caller]
    pub fn await_usage(&self, what: &str, holds: impl Fn(u64) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        let current = || std::fs::read_to_string(self.path.join("memory.current")).unwrap_or_default();
        while !current().trim().parse().is_ok_and(&holds) {
            assert!(Instant::now() < until, "{}: not {what}: {}", self.name(), current());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns all values of its files that a program could set.
    pub fn settings(&self) -> Vec<(String, String)> {
        const SET: [&str; 8] = [
            "memory.high",
            "memory.low",
            "memory.max",
            "memory.min",
            "memory.swap.high",
            "memory.swap.max",
            "memory.oom.group",
            "cgroup.subtree_control",
        ];
        SET.iter().map(|file| ((*file).to_owned(), self.read(file))).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        for file in [self.data.clone(), self.data.with_extension("more")] {
            let _ = std::fs::remove_file(file);
        }
        let _ = std::fs::remove_file(&self.names[1]);
        let _ = self.names[0].parent().map(std::fs::remove_dir_all);
        // The container and its pod. systemd removes its own at once, too.
        for path in [Some(&*self.path), self.path.parent()].into_iter().flatten() {
            let until = Instant::now() + Duration::from_secs(5);
            while std::fs::remove_dir(path).is_err() && path.exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Makes a cgroup and those above it, which pass the memory controller on.
pub fn make(path: &Path) {
    std::fs::create_dir_all(path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
    for above in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if above.starts_with(root()) {
            std::fs::write(above.join("cgroup.subtree_control"), "+memory").expect("pass it on");
        }
    }
}
