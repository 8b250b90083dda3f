//! A watch whose events are read while it runs.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::watch::{Events, begin, parsed, signal};

pub struct Followed {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Followed {
    /// Starts a watch; its words include `--json`.
    pub fn begin(words: &[&str]) -> Self {
        let mut child = begin(words);
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let reader = std::thread::spawn({
            let said = Arc::clone(&said);
            move || {
                for line in output.lines() {
                    let line = line.expect("a line of text") + "\n";
                    said.lock().expect("no reader fails with it").push_str(&line);
                }
            }
        });
        Self { child, said, reader }
    }

    /// Returns the events so far.
    pub fn events(&self) -> Events {
        parsed(&self.said.lock().expect("no reader fails with it"))
    }

    /// Waits until its events are such, for at most a time: other guests may keep this one's
    /// processors busy.
    pub fn until(&self, what: &str, seconds: u64, holds: impl Fn(&Events) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !holds(&self.events()) {
            assert!(Instant::now() < end, "{what} never came: {:?}", self.events());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Stops it, and returns all of its events.
    pub fn ended(mut self) -> Events {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().expect("memctl ends");
        self.reader.join().expect("it reads to the end");
        let all = parsed(&self.said.lock().expect("it has ended"));
        assert!(status.success(), "{status}: {all:?}");
        all
    }
}
