//! Whatever stands in a file of rules is read or refused with its place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memctl::watch::rules::Rules;

fuzz_target!(|text: &str| {
    match Rules::parse(text) {
        Ok(rules) => assert!(!rules.each.is_empty()),
        Err(bad) => assert!(bad.line >= 1 && bad.column >= 1 && !bad.what.contains('\n')),
    }
});
