//! A simulated host on which the loop of a watch runs: deterministic, in one thread, with a clock of
//! its own. The same seed gives the same trace, byte for byte.
//!
//! The loop is the real one, behind the seam of [`super::system`]. A [plan](plan) says which cgroups
//! there are, how they grow, and what goes wrong when; the [world](world) plays the kernel and the
//! applications; [checks](check) hold what a watch promises, at each of its steps.

mod check;
mod leaf;
mod plan;
mod scenarios;
mod shapes;
mod system;
mod tests;
mod world;
