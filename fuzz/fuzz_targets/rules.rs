//! Fuzz target for the parser of host rules, from any text.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../properties.rs"]
mod properties;

fuzz_target!(|text: &str| properties::rules(text));
