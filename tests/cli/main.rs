//! The program as a user runs it: natively, and inside real kernels booted by tests/vm.
//!
//! Every case lists its needs. tests/vm/kernels.tsv, checked in, lists the features of each kernel;
//! a case whose needs an environment doesn't have is not applicable there, and reported as such.
//! There is no other way to skip a case.

#![allow(clippy::disallowed_methods, reason = "reads numbers and files of its own")]

use libtest_mimic::{Arguments, Completion, Trial};

mod allocations;
mod boot;
mod check;
#[path = "../../src/cli.rs"]
#[allow(dead_code, missing_docs)]
mod cli;
mod completion;
mod embedded;
mod environment;
mod events;
mod followed;
mod harness;
mod hidden;
mod hints;
mod kernel_selftests;
mod kubernetes;
mod limits;
mod man;
mod manifests;
mod metrics;
mod mounts;
mod multiple;
mod names;
mod namespace;
mod net_saving;
mod node;
mod oomd;
mod options;
mod overhead;
mod paths;
mod plan;
mod plot;
mod pod_names;
mod pods;
mod pressure;
mod reclaim;
mod rights;
mod rules;
mod service;
mod settle;
mod signals;
mod slab;
mod stat;
mod swap;
mod systemd;
mod targets;
mod terminal;
mod total;
mod trouble;
mod unreclaimable;
mod usage;
mod watch;
mod workload;

use environment::{Case, Place};

fn main() {
    if let Some(work) = workload::asked_for() {
        return work.run();
    }
    if let Some(inside) = namespace::asked_for() {
        return inside.run();
    }
    if let Some(attacker) = trouble::asked_for() {
        return attacker.run();
    }
    if let Some(asked) = rights::asked_for() {
        rights::become_memctl(asked);
    }
    if let Some(count) = mounts::asked_for() {
        return mounts::make(count);
    }
    let here = Place::here();
    println!("place: {here}");
    let cases: Vec<Case> = [
        unreclaimable::first_cases(),
        environment::cases(),
        usage::cases(),
        man::cases(),
        manifests::cases(),
        unreclaimable::cases(),
        reclaim::cases(),
        slab::cases(),
        options::cases(),
        multiple::cases(),
        settle::cases(),
        boot::cases(),
        check::cases(),
        targets::cases(),
        paths::cases(),
        names::cases(),
        pods::cases(),
        pod_names::cases(),
        kubernetes::cases(),
        hints::cases(),
        node::cases(),
        systemd::cases(),
        service::cases(),
        oomd::cases(),
        stat::cases(),
        completion::cases(),
        total::cases(),
        hidden::cases(),
        limits::cases(),
        pressure::cases(),
        rules::cases(),
        plot::cases(),
        overhead::cases(),
        metrics::cases(),
        embedded::cases(),
        watch::cases(),
        events::cases(),
        trouble::cases(),
        net_saving::cases(),
        plan::cases(),
        signals::cases(),
        swap::cases(),
        kernel_selftests::cases(),
    ]
    .concat();
    environment::every_case_applies_somewhere(&cases);
    let trials = cases.into_iter().map(|case| {
        let missing = here.missing(&case);
        Trial::ignorable_test(case.name, move || {
            if let Some(need) = missing {
                Ok(Completion::ignored_with(format!("not applicable here: needs {need}")))
            } else {
                environment::await_calm();
                (case.run)();
                Ok(Completion::Completed)
            }
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
