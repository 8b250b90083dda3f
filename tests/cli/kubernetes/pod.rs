//! A pod of memctl, played by podman from the `DaemonSet` in contrib/kubernetes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::thread::LinkNameSpaceType;

use crate::harness::Finished;
use crate::systemd::output;
use crate::watch::{Events, parsed};

/// Folder into which tests/vm/run puts the program, its Containerfile and the manifests.
pub const PARTS: &str = "/pod";

/// Folders of the kubelet, whose entries name pods and containers.
pub const LOGS_OF_PODS: &str = "/var/log/pods";
pub const LOGS_OF_CONTAINERS: &str = "/var/log/containers";

/// Image of memctl, as the manifests name it.
const IMAGE: &str = "memctl:0.1.0";

/// The manifests, which a case may change.
pub struct Manifests(String);

impl Manifests {
    /// Reads the manifests, without the probe: podman would run it inside the container, which has
    /// no program for it.
    pub fn read() -> Self {
        let text = std::fs::read_to_string(Path::new(PARTS).join("daemonset.yaml")).expect("manifests");
        Self(text).with_block("livenessProbe:", None)
    }

    /// Replaces the rules in the `ConfigMap`.
    pub fn with_rules(self, rules: &str) -> Self {
        self.with_block("watch.toml: |", Some(rules))
    }

    /// Replaces a text, which must be there.
    pub fn with(self, old: &str, new: &str) -> Self {
        assert!(self.0.contains(old), "{old} in {}", self.0);
        Self(self.0.replace(old, new))
    }

    /// Replaces the lines below the line `head`, or removes that line as well.
    fn with_block(self, head: &str, lines: Option<&str>) -> Self {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let (mut text, mut within, mut found) = (String::new(), None, 0);
        for line in self.0.lines() {
            if within.is_some_and(|within| line.trim().is_empty() || indent(line) > within) {
                continue;
            }
            within = (line.trim() == head).then(|| indent(line));
            let Some(indent) = within else {
                text = text + line + "\n";
                continue;
            };
            found += 1;
            if let Some(lines) = lines {
                text = text + line + "\n";
                for line in lines.lines() {
                    text = text + &" ".repeat(indent + 2) + line + "\n";
                }
            }
        }
        assert_eq!(found, 1, "{head} in {}", self.0);
        Self(text)
    }
}

/// The pod. Dropping it removes it.
pub struct Pod {
    /// Name that podman gives to its only container.
    container: &'static str,
}

impl Pod {
    /// Plays the manifests.
    pub fn play(manifests: &Manifests) -> Self {
        Self::build();
        for folder in [LOGS_OF_PODS, LOGS_OF_CONTAINERS] {
            std::fs::create_dir_all(folder).expect("make a folder of the kubelet");
        }
        let path = "/run/pod.yaml";
        std::fs::write(path, &manifests.0).expect("write the manifests");
        let pod = Self { container: "memctl-pod-memctl" };
        output(Command::new("podman").args(["kube", "play", "--network", "none", path]));
        pod
    }

    /// Builds the image, unless it was built before.
    pub fn build() {
        let exists = Command::new("podman").args(["image", "exists", IMAGE]).status().expect("podman runs");
        if !exists.success() {
            output(Command::new("podman").args([
                "build",
                "--network=none",
                "--quiet",
                "--tag",
                IMAGE,
                PARTS,
            ]));
        }
    }

    /// Runs memctl once in a container of the image, with these options of podman.
    pub fn run(options: &[&str], words: &[&str]) -> Finished {
        Self::build();
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--network=none", "--read-only", "--cap-drop=all"]);
        command.args(["--volume=/sys/fs/cgroup:/sys/fs/cgroup", "--security-opt=no-new-privileges"]);
        command.args(options).arg(IMAGE).args(words);
        command.stdin(Stdio::null()).output().expect("podman runs").into()
    }

    /// Runs memctl in its container, beside the watch.
    pub fn exec(&self, words: &[&str]) -> Finished {
        let mut command = Command::new("podman");
        command.args(["exec", self.container, "/memctl"]).args(words);
        command.stdin(Stdio::null()).output().expect("podman runs").into()
    }

    fn inspect(&self, what: &str) -> String {
        output(Command::new("podman").args(["container", "inspect", "--format", what, self.container]))
    }

    /// Returns the process of memctl.
    pub fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().expect("a process")
    }

    /// Returns its file in /proc.
    pub fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("it runs")
    }

    /// Returns what was written to standard output and standard error.
    pub fn logs(&self) -> (String, String) {
        let command = Command::new("podman").args(["logs", self.container]).output();
        let Output { stdout, stderr, .. } = command.expect("podman runs");
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
    }

    pub fn events(&self) -> Events {
        parsed(&self.logs().0)
    }

    /// Returns the response of its port to a request for `path`, from within its network namespace.
    pub fn get(&self, path: &str) -> String {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).expect("it runs");
        let request = format!("GET {path} HTTP/1.1\r\nHost: memctl\r\n\r\n");
        // In a thread, since a thread that entered a namespace stays there.
        let response = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("enter the namespace");
            let mut stream = TcpStream::connect("127.0.0.1:19560").expect("it listens");
            stream.write_all(request.as_bytes()).expect("send a request");
            let mut response = String::new();
            stream.read_to_string(&mut response).expect("a response");
            response
        });
        response.join().expect("it answers")
    }

    /// Replaces the rules as the kubelet does with a `ConfigMap`: another folder, to which the link
    /// `..data` leads from then on.
    pub fn replace_rules(&self, rules: &str) {
        let volume = self.inspect("{{range .Mounts}}{{if eq .Name \"memctl\"}}{{.Source}}{{end}}{{end}}");
        let volume = PathBuf::from(volume);
        let data = volume.join("..data");
        let old = std::fs::read_link(&data).ok();
        let new = if old.as_deref() == Some(Path::new("..1")) { "..2" } else { "..1" };
        std::fs::create_dir(volume.join(new)).expect("make a folder");
        std::fs::write(volume.join(new).join("watch.toml"), rules).expect("write the rules");
        link(Path::new(new), &data);
        match old {
            Some(old) => std::fs::remove_dir_all(volume.join(old)).expect("remove the old rules"),
            // What podman made is a file.
            None => link(Path::new("..data/watch.toml"), &volume.join("watch.toml")),
        }
    }

    /// Stops it as the kubelet does: SIGTERM, and SIGKILL after the manifests' time. Returns the exit
    /// status.
    pub fn stop(&self) -> String {
        output(Command::new("podman").args(["stop", self.container]));
        self.inspect("{{.State.ExitCode}}")
    }

    /// Kills it outright, and waits for its end.
    pub fn kill(&self) {
        output(Command::new("podman").args(["kill", self.container]));
        assert_eq!(output(Command::new("podman").args(["wait", self.container])), "137");
    }
}

/// Makes a symbolic link in place of whatever file has that name.
fn link(target: &Path, path: &Path) {
    let new = path.with_file_name("new");
    std::os::unix::fs::symlink(target, &new).unwrap_or_else(|e| panic!("make {}: {e}", new.display()));
    std::fs::rename(&new, path).unwrap_or_else(|e| panic!("replace {}: {e}", path.display()));
}

impl Drop for Pod {
    fn drop(&mut self) {
        // With a volume that is left, the next pod would begin with the rules of this one.
        for words in [&["kube", "down", "/run/pod.yaml"][..], &["volume", "rm", "--force", "memctl"]] {
            let _ = Command::new("podman").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
