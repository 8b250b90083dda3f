//! Replay of the seeds of the fuzz targets, which need a nightly toolchain themselves.

use std::fs;
use std::path::Path;

#[path = "../fuzz/properties.rs"]
mod properties;

#[test]
fn rules_hold_for_every_seed() {
    for seed in read_all(&["fuzz/seeds/rules", "contrib"]) {
        properties::rules(&String::from_utf8_lossy(&seed));
    }
}

#[test]
fn records_hold_for_every_seed() {
    for seed in read_all(&["fuzz/seeds/record", "tests/records"]) {
        properties::record(&seed);
    }
}

/// Reads the files of folders, each of which must have some.
fn read_all(folders: &[&str]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for folder in folders {
        let before = all.len();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect(folder) {
            let path = entry.expect(folder).path();
            if path.is_file() {
                all.push(fs::read(&path).expect("read a seed"));
            }
        }
        assert!(all.len() > before, "{folder}: no seeds");
    }
    all
}
