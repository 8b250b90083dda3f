//! A second run of a case that failed in a guest.
//!
//! Guests are emulated on machines that do other things as well: a disk that rests for seconds, or
//! a processor that does, may fail a case. A case that fails is run a second time, alone as all
//! are. What failed first is told in full, and named at the end: such a case is to be mended, too.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use crate::environment::{self, Case};

/// Number of cases of a run that may have a second one: where more fail, it isn't chance.
const MAX_SECOND_RUNS: usize = 2;

/// Names of the cases that were run a second time.
static AGAIN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Runs a case, and once more if it fails where tests/vm/run runs all of them.
pub fn up_to_twice(case: &Case) {
    let may = std::env::var_os("MEMCTL_SECOND_RUN").is_some();
    environment::await_calm();
    let Err(panic) = catch_unwind(AssertUnwindSafe(case.run)) else { return };
    let mut again = AGAIN.lock().expect("no case runs with it");
    if !may || again.len() == MAX_SECOND_RUNS {
        drop(again);
        resume_unwind(panic);
    }
    again.push(case.name);
    drop(again);
    eprintln!("{} failed: it is run a second time", case.name);
    environment::await_calm();
    (case.run)();
}

/// Names the cases that were run a second time.
pub fn tell() {
    for name in AGAIN.lock().expect("no case runs with it").iter() {
        println!("run twice, since the first run failed: {name}");
    }
}
