//! The engine of memctl: finding a cgroup, asking the kernel to reclaim memory from it, and telling the truth about
//! what came of it.
//!
//! Nothing here knows of a command line or a screen. [`cgroup`] is the only place where the kernel's files are
//! read and written; [`reclaim`] is the chunk loop over anything that implements [`reclaim::Target`];
//! [`watch`] is the control loop, and [`record`] reads again what it told; [`size`] reads byte sizes as people write them.

pub mod cgroup;
pub mod check;
pub mod clock;
pub mod host;
pub mod kind;
pub mod node;
pub mod reclaim;
pub mod record;
pub mod select;
pub mod size;
pub mod watch;
