//! The subcommands: from parsed words to the engine, from its report to the output.

pub mod check;
pub mod plot;
pub mod reclaim;
pub mod stat;
pub mod watch;
