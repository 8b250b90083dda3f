//! Reclaims memory from a cgroup: `cargo run --example reclaim -- app 10M`.
//!
//! The request stops after a second, prints each write, and reports what prevented more.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use memctl::cgroup::MemoryCgroup;
use memctl::kind::Kind;
use memctl::reclaim::{self, Goal, Request, RequestEvent};
use memctl::select::locate;
use memctl::size::Amount;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let (Some(cgroup), Some(size), None) = (words.next(), words.next(), words.next()) else {
        eprintln!("usage: reclaim CGROUP SIZE");
        return ExitCode::from(2);
    };
    match reclaim_from(&cgroup, &size.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("reclaim: {why}");
            ExitCode::FAILURE
        }
    }
}

fn reclaim_from(cgroup: &std::ffi::OsStr, size: &str) -> Result<(), Box<dyn Error>> {
    let amount: Amount = size.parse()?;
    let mut target = MemoryCgroup::open(&locate(cgroup)?)?;
    let mut request = Request::new(Goal::Reclaim(amount), Kind::All);
    request.timeout = Some(Duration::from_secs(1));
    request.check(&mut target)?;
    let report = reclaim::run(&mut target, &request, &|| false, &mut |event| {
        if let RequestEvent::Asked { bytes, reclaimed, took, .. } = event {
            eprintln!("requested {bytes} bytes in {took:?}; {reclaimed} reclaimed so far");
        }
    })?;
    println!("{} bytes reclaimed, ended by {:?}", report.reclaimed, report.stopped_by);
    for obstacle in &report.obstacles {
        println!("prevented more: {obstacle:?}");
    }
    Ok(())
}
