//! Completion in the real shells, through a terminal: keys typed, the shell's completion, and the
//! arguments that a command then receives.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::environment::{Case, list};
use crate::harness::{Cgroup, M};
use crate::terminal::{pair, without_escapes};
use crate::workload::Work;

pub fn cases() -> Vec<Case> {
    list![
        "guest shells" =>
            bash_completes_live_cgroups,
            zsh_completes_live_cgroups,
            zsh_finds_it_by_itself,
            fish_completes_live_cgroups
    ]
}

/// Start of a shell, with the loader of the completion. `args` prints the arguments of a command.
struct Way {
    shell: &'static [&'static str],
    loader: (&'static str, &'static str),
    init: &'static str,
}

const BASH: Way = Way {
    shell: &["/usr/bin/bash", "--norc", "--noprofile", "-i"],
    loader: ("/tmp/memctl.bash", include_str!("../../completions/memctl.bash")),
    init: "source /tmp/memctl.bash; args() { printf '<%s>' \"$@\"; echo; }",
};
const ZSH: Way = Way {
    shell: &["/usr/bin/zsh", "-f", "-i"],
    loader: ("/tmp/load/_memctl", include_str!("../../completions/_memctl")),
    init: "autoload -U compinit; compinit -D -u; source /tmp/load/_memctl; args() { printf '<%s>' \"$@\"; echo; }",
};
const ZSH_BY_ITSELF: Way = Way {
    init: "fpath+=/tmp/load; autoload -U compinit; compinit -D -u; args() { printf '<%s>' \"$@\"; echo; }",
    ..ZSH
};
const FISH: Way = Way {
    shell: &["/usr/bin/fish", "--no-config", "-i"],
    loader: ("/tmp/memctl.fish", include_str!("../../completions/memctl.fish")),
    init: "source /tmp/memctl.fish; function args; printf '<%s>' $argv; echo; end",
};

/// A shell on a terminal.
struct Shell {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Shell {
    fn start(way: &Way) -> Self {
        if !std::path::Path::new("/usr/bin/fish").exists() {
            let status =
                Command::new("/bin/tar").args(["xf", "/shells.tar", "-C", "/"]).status().expect("tar");
            assert!(status.success(), "unpack the shells");
        }
        let (path, text) = way.loader;
        std::fs::create_dir_all("/tmp/load")
            .and_then(|()| std::fs::write(path, text))
            .expect("write the loader");
        let binary = assert_cmd::cargo::cargo_bin!("memctl");
        let _ = std::fs::remove_file("/tmp/load/memctl");
        std::os::unix::fs::symlink(binary, "/tmp/load/memctl").expect("a link to memctl");
        let (master, slave) = pair(200);
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = Command::new("/bin/busybox")
            .args(["setsid", "-c"])
            .args(way.shell)
            .env("PATH", "/tmp/load:/usr/bin:/bin")
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8")
            .envs([("PS1", "> "), ("HOME", "/root")])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the shell starts");
        let screen = Arc::new(Mutex::new(String::new()));
        let (keyboard, mut output, shown) =
            (master.try_clone().expect("a descriptor"), master, Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut chunk) {
                shown.lock().expect("nobody panicked").push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        });
        let mut shell = Self { child, keyboard, screen };
        shell.run(way.init, None);
        shell.run("args ready now", Some("<ready><now>"));
        shell
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until the text has been shown since the screen was last cleared.
    fn see(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let shown = without_escapes(&self.screen.lock().expect("nobody panicked"));
            if shown.contains(text) {
                return;
            }
            assert!(Instant::now() < until, "{text:?} in {shown:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing has been shown for a moment.
    fn rest(&self) {
        let mut seen = usize::MAX;
        loop {
            let now = self.screen.lock().expect("nobody panicked").len();
            if now == seen {
                return;
            }
            seen = now;
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn run(&mut self, line: &str, shows: Option<&str>) {
        self.rest();
        self.screen.lock().expect("nobody panicked").clear();
        self.press(&format!("{line}\r"));
        if let Some(text) = shows {
            self.see(text);
        }
    }

    /// Types, with tabs, and checks the arguments that a command would receive.
    #[track_caller]
    fn completes(&mut self, typed: &str, words: &[&str]) {
        self.rest();
        self.screen.lock().expect("nobody panicked").clear();
        for part in typed.split_inclusive('\t') {
            self.press(part);
            self.rest();
        }
        // To the beginning of the line: the command becomes the arguments of another command.
        self.press("\u{1}args \r");
        self.see(&format!("<{}>", words.join("><")));
        self.rest();
    }

    /// Types, and checks the listed candidates.
    fn lists(&mut self, typed: &str, texts: &[&str]) {
        self.rest();
        self.screen.lock().expect("nobody panicked").clear();
        for part in typed.split_inclusive('\t') {
            self.press(part);
            self.rest();
        }
        for text in texts {
            self.see(text);
        }
        self.press("\u{3}");
        self.rest();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const UNIT: &str = r"a\x2db.service";

/// Checks the completions that every shell must offer.
fn completes(way: &Way) {
    let slice = Cgroup::new("memctltest.slice");
    let _unit = slice.child(UNIT);
    let (_one, _two) = (slice.child("cri:one"), slice.child("cri:two"));
    let app = Cgroup::new("wholly.scope");
    app.uses(&Work::File(40 * M));
    let odd = Cgroup::of_bytes(b"odd\xe9name");
    let mut shell = Shell::start(way);
    let unit = format!("memctltest.slice/{UNIT}");
    shell.completes("memctl recl\t", &["memctl", "reclaim"]);
    shell.completes("memctl reclaim memctlt\ta\t", &["memctl", "reclaim", &unit]);
    shell.completes("memctl reclaim 'memctltest.slice/a\t", &["memctl", "reclaim", &unit]);
    shell.completes("memctl reclaim \"memctltest.slice/a\t", &["memctl", "reclaim", &unit]);
    shell.completes("memctl reclaim memctltest.slice/a\\\\\t", &["memctl", "reclaim", &unit]);
    shell.completes(
        "memctl reclaim memctltest.slice/cri:o\t",
        &["memctl", "reclaim", "memctltest.slice/cri:one"],
    );
    shell.completes(
        "memctl reclaim /sys/fs/cgroup/wh\t10M",
        &["memctl", "reclaim", "/sys/fs/cgroup/wholly.scope", "10M"],
    );
    shell.completes("memctl reclaim wh\tma\t", &["memctl", "reclaim", "wholly.scope", "max"]);
    shell.completes(
        "memctl reclaim wholly.scope 10M --typ\tf\t",
        &["memctl", "reclaim", "wholly.scope", "10M", "--type", "file"],
    );
    // The byte is preserved: a command receives the kernel's name, not the replacement character.
    shell.completes("memctl stat od\t", &["memctl", "stat", "odd\u{fffd}name"]);
    shell.run("memctl stat --json odd\t", Some("/sys/fs/cgroup/odd%E9name"));
    drop(odd);
    // A quote in a name ends no quotes of the line.
    let quote = Cgroup::new("q';touch x");
    shell.completes("memctl reclaim 'q\t", &["memctl", "reclaim", quote.name()]);
    shell.completes("memctl reclaim \"q\t", &["memctl", "reclaim", quote.name()]);
    shell.completes("memctl reclaim q\t", &["memctl", "reclaim", quote.name()]);
    drop(quote);
    shell.lists("memctl reclaim \t\t\t", &["memctltest.slice/", "wholly.scope", " MiB"]);
    shell.lists("memctl reclaim --max\t\t\t", &["--max-pressure", "--max-rate"]);
}

/// Checks that no part of a name is read as the shell's history.
fn completes_history(way: &Way) {
    let history = Cgroup::new("wow!x");
    let mut shell = Shell::start(way);
    for open in ["", "'", "\""] {
        shell.completes(&format!("memctl reclaim {open}wo\t"), &["memctl", "reclaim", history.name()]);
    }
}

fn bash_completes_live_cgroups() {
    completes(&BASH);
    completes_history(&BASH);
}

fn zsh_completes_live_cgroups() {
    completes(&ZSH);
}

/// Loads the completion from `fpath`, at the first attempt.
fn zsh_finds_it_by_itself() {
    let app = Cgroup::new("wholly.scope");
    let mut shell = Shell::start(&ZSH_BY_ITSELF);
    shell.completes("memctl reclaim wh\tma\t", &["memctl", "reclaim", "wholly.scope", "max"]);
    drop(app);
}

fn fish_completes_live_cgroups() {
    completes(&FISH);
    completes_history(&FISH);
}
