//! memctl asks the Linux kernel to reclaim memory from a cgroup through `memory.reclaim`, measures how
//! much was reclaimed, and reports what prevented more and what it cost.
//!
//! This is the engine of the program `memctl`. It knows no command line and no screen. [`reclaim`]
//! serves requests, [`watch`] reclaims continuously, [`select`] finds cgroups by name, [`cgroup`]
//! and [`host`] read and write the kernel's files, and nothing else does.
//!
//! # A request
//!
//! Reclaims 10 MiB from the cgroup `app`, in chunks, and prints how much was reclaimed:
//!
//! ```no_run
//! use memctl::cgroup::MemoryCgroup;
//! use memctl::kind::Kind;
//! use memctl::reclaim::{self, Goal, Request};
//! use memctl::select::locate;
//! use memctl::size::Amount;
//!
//! let mut target = MemoryCgroup::open(&locate("app")?)?;
//! let request = Request::new(Goal::Reclaim(Amount::Bytes(10 << 20)), Kind::All);
//! // The first closure ends the request early; the second one receives its steps.
//! let report = reclaim::run(&mut target, &request, &|| false, &mut |_| {})?;
//! println!("{} of {:?} bytes, ended by {:?}", report.reclaimed, report.requested, report.stopped_by);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The whole of it, with an error for each of these steps, is in `examples/reclaim.rs`.

pub mod cgroup;
pub mod host;
pub mod kind;
pub mod reclaim;
pub mod select;
pub mod size;
pub mod watch;

// Only the program needs these.
#[doc(hidden)]
pub mod check;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod node;
#[doc(hidden)]
pub mod record;
