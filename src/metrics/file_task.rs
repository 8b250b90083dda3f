//! The file of metrics, written by a [`Task`]: a file system that hangs doesn't hold up the control
//! loop.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, Seek};
use std::time::Duration;

use memctl::clock;
use memctl::task::Task;
use rustix::fd::OwnedFd;

use super::file::MetricsFile;

/// Time after which a task counts as hanging.
pub const HANGS: Duration = Duration::from_secs(30);

/// Maximum time at the end for a version in progress, and for the removal of the file.
const END_TIME: Duration = Duration::from_secs(2);

/// Returns the file, and the result of a version.
type Writing = Task<(MetricsFile, io::Result<()>)>;

/// The file, and the task that has it.
pub struct FileTask {
    /// `None` while a task has it.
    file: RefCell<Option<MetricsFile>>,
    task: RefCell<Option<Writing>>,
    began: Cell<Duration>,
}

impl FileTask {
    /// Creates it.
    pub fn new(file: MetricsFile) -> Self {
        Self { file: RefCell::new(Some(file)), task: RefCell::default(), began: Cell::default() }
    }

    /// Returns whether a version can be written now: the last one is.
    pub fn is_free(&self) -> bool {
        self.file.borrow().is_some()
    }

    /// Begins to write a version, if it [is free](Self::is_free).
    pub fn begin(&self, text: OwnedFd) {
        let Some(mut file) = self.file.take() else { return };
        self.began.set(clock::now());
        let task = Task::start(move || {
            let wrote = write(&mut file, text);
            (file, wrote)
        });
        self.task.replace(Some(task));
    }

    /// Returns the result of a version, once; an error while it hangs.
    pub fn wrote(&self) -> Option<io::Result<()>> {
        let done = self.task.borrow().as_ref()?.wait(Duration::ZERO);
        if let Ok(Some((file, wrote))) = done {
            self.task.replace(None);
            self.file.replace(Some(file));
            return Some(wrote);
        }
        let hangs = clock::now().saturating_sub(self.began.get()) >= HANGS;
        hangs.then(|| Err(ErrorKind::TimedOut.into()))
    }
}

/// Replaces the file.
fn write(file: &mut MetricsFile, text: OwnedFd) -> io::Result<()> {
    let mut text = File::from(text);
    text.rewind()?;
    file.replace(|to| io::copy(&mut text, to).map(drop))
}

impl Drop for FileTask {
    fn drop(&mut self) {
        if let Some(task) = self.task.take()
            && let Ok(Some((file, _))) = task.wait(END_TIME)
        {
            self.file.replace(Some(file));
        }
        if let Some(file) = self.file.take() {
            let _ = Task::start(move || drop(file)).wait(END_TIME);
        }
    }
}
