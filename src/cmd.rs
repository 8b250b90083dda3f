//! The subcommands: from parsed arguments to the engine, and from its report to the output.

pub mod check;
pub mod plot;
pub mod reclaim;
pub mod stat;
pub mod watch;
