//! memctl asks the Linux kernel to reclaim memory from a cgroup through `memory.reclaim`, measures
//! how much was reclaimed, and reports what prevented more and what it cost.
//!
//! This is the engine of the program `memctl`. It knows no command line and no screen. [`reclaim`]
//! serves requests, [`watch`] reclaims continuously, [`select`] finds cgroups by name, and
//! [`cgroup`] and [`host`] read and write the kernel's files.
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
//! println!("{} bytes, ended by {:?}", report.reclaimed, report.stopped_by);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The whole of it, with an error for each of these steps, is in `examples/reclaim.rs`.
//!
//! # A watch
//!
//! Keeps a tenth of the limit of its own cgroup free, until `stop` returns true:
//!
//! ```no_run
//! use std::rc::Rc;
//! use std::sync::Arc;
//!
//! use memctl::select::locate;
//! use memctl::size::parse_headroom;
//! use memctl::watch::config::rule::RuleSpec;
//! use memctl::watch::members::Members;
//! use memctl::watch::options::WatchOptions;
//!
//! let rule = RuleSpec { headroom: Some(parse_headroom("10%")?), ..RuleSpec::default() }.rule()?;
//! let mut members = Members::new(false)?;
//! members.add(Arc::new(locate("self")?), Rc::new(rule))?;
//! let ended = members.watch(WatchOptions::new(&|| false, &mut |event| {
//!     println!("{}: {:?}", event.cgroup, event.what);
//! }))?;
//! println!("{} bytes reclaimed", ended.each[0].total.reclaimed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/uswapd.rs` runs such a watch in a thread of an application, so that the threads that
//! answer don't have to reclaim.

pub mod cgroup;
pub mod duration;
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
#[doc(hidden)]
pub mod task;
