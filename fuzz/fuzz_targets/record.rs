//! Whatever stands in a record is read or refused, and several cgroups are one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memctl::record::Record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::read(bytes) {
        let all = record.together(100);
        assert!(!all.points.is_empty() && all.points.len() <= 1 << 20);
        for course in record.courses.iter().chain([&all]) {
            assert!(course.points.windows(2).all(|two| two[0].at <= two[1].at));
        }
    }
});
