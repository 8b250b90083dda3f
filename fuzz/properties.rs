//! Properties that hold for any input: the bodies of the fuzz targets, and of tests/fuzz.rs.

#![allow(dead_code)] // Each fuzz target uses one of them.

use memctl::record::Record;
use memctl::watch::config::Rules;

/// Checks that rules are parsed, or refused with a place and one line of text.
pub fn rules(text: &str) {
    match Rules::parse(text) {
        Ok(rules) => assert!(!rules.each.is_empty()),
        Err(bad) => assert!(bad.line >= 1 && bad.column >= 1 && !bad.mistake.to_string().contains('\n')),
    }
}

/// Checks that a record is read or refused; its courses are ordered by time, and add up to a
/// bounded one.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = Record::read(bytes) {
        let all = record.together(100);
        assert!(!all.points.is_empty() && all.points.len() <= 1 << 20);
        for course in record.courses.iter().chain([&all]) {
            assert!(course.points.windows(2).all(|two| two[0].at <= two[1].at));
        }
    }
}
