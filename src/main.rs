//! The memctl program: parses the command line, dispatches the command, and returns the exit
//! status.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod cmd;
mod complete;
mod error;
mod exit;
mod metrics;
mod notify;
mod output;
mod signal;
mod usage;

fn main() -> ExitCode {
    complete::answer();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::error::print_clap(&error).into(),
    };
    output::use_colour(cli.global.color);
    let ended = match &cli.command {
        cli::Command::Reclaim(args) => cmd::reclaim::run(args, &cli.global),
        cli::Command::Watch(args) => cmd::watch::run(args, &cli.global),
        cli::Command::Check(args) => cmd::check::run(args, &cli.global),
        cli::Command::Stat(args) => cmd::stat::run(args, &cli.global),
        cli::Command::Plot(args) => cmd::plot::run(args, &cli.global),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => output::error::print(&error).into(),
    }
}
