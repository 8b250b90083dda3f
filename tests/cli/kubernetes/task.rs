//! memctl in a container of containerd and runc, which have no image and no pod: a folder with the
//! program, and the mounts, the names and the rights that the kubelet asks for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::container::Driver;
use super::pod::PARTS;
use crate::harness::root;
use crate::systemd::output;
use crate::watch::{Events, ended, until};

/// Identifiers of its pod and its container.
const UID: &str = "ff000000-0000-4000-8000-000000000000";
const ID: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// The kernel's capabilities that the runtime gives by default, but for `CAP_DAC_OVERRIDE`.
const DROPPED: [&str; 13] = [
    "CHOWN",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A watch in a container.
pub struct Task {
    child: Option<Child>,
    path: PathBuf,
}

impl Task {
    /// Runs memctl with the whole hierarchy at /host/cgroup, and the runtime's own mount at
    /// /sys/fs/cgroup, as for any pod.
    pub fn watch(driver: Driver, words: &[&str]) -> Self {
        output(Command::new("systemctl").args(["start", "containerd"]));
        let folder = Path::new("/run/memctl-root");
        std::fs::create_dir_all(folder.join("host/cgroup")).expect("make a folder");
        std::fs::copy(Path::new(PARTS).join("memctl"), folder.join("memctl")).expect("copy memctl");
        let mut command = Command::new("ctr");
        command.args(["run", "--rm", "--rootfs", "--read-only", "--seccomp", "--memory-limit=33554432"]);
        for name in DROPPED {
            command.arg(format!("--cap-drop=CAP_{name}"));
        }
        command.args(["--cap-add=CAP_IPC_LOCK", "--cap-add=CAP_SYS_RESOURCE"]);
        command.arg("--mount=type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro:nosuid:noexec:nodev");
        command.arg("--mount=type=bind,src=/sys/fs/cgroup,dst=/host/cgroup,options=rbind:rw");
        let path = match driver {
            Driver::Systemd => {
                let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
                command.args(["--runc-systemd-cgroup", &format!("--cgroup={slice}:cri-containerd:{ID}")]);
                let slices = root().join("kubepods.slice/kubepods-burstable.slice");
                slices.join(slice).join(format!("cri-containerd-{ID}.scope"))
            }
            Driver::Cgroupfs => {
                let name = format!("kubepods/burstable/pod{UID}/{ID}");
                command.arg(format!("--cgroup=/{name}"));
                root().join(name)
            }
        };
        command.arg(folder).args([ID, "/memctl", "watch", "--json"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let task = Self { child: Some(command.spawn().expect("ctr runs")), path };
        // Until then the process is runc's, with all rights.
        until("memctl", || task.comm().as_deref() == Some("memctl\n"));
        task
    }

    fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.path.join("cgroup.procs")).ok()?.lines().next()?.parse().ok()
    }

    fn comm(&self) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/comm", self.pid()?)).ok()
    }

    /// Returns its file in /proc.
    pub fn proc(&self, file: &str) -> String {
        let pid = self.pid().expect("a process");
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs")
    }

    /// Returns the name of its cgroup, without the mount.
    pub fn name(&self) -> String {
        format!("/{}", self.path.strip_prefix(root()).expect("below the root").display())
    }

    /// Returns the pages that were reclaimed from its pod.
    pub fn stolen(&self) -> u64 {
        let stat = std::fs::read_to_string(self.path.parent().expect("a pod").join("memory.stat"));
        let stat = stat.expect("read memory.stat");
        let line = stat.lines().find_map(|line| line.strip_prefix("pgsteal ")).expect("pgsteal");
        line.parse().expect("a number")
    }

    /// Stops it, and returns its events. ctr passes the signal on, and the exit status back.
    pub fn stop(mut self) -> Events {
        ended(self.child.take().expect("it runs"))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = std::fs::write(self.path.join("cgroup.kill"), "1");
            let _ = child.wait();
        }
    }
}
