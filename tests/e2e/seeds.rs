//! What the fuzzers begin with, and what they found once, given to the properties of `fuzz/src` on every run.

use std::path::Path;

use crate::properties::TARGETS;

#[test]
fn the_seeds_of_the_fuzzers_hold() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let folders = std::fs::read_dir(&seeds).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "a folder of seeds for each target");
    for (name, property) in TARGETS {
        let files: Vec<_> =
            std::fs::read_dir(seeds.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name} has no seeds");
        for file in files {
            let input = std::fs::read(&file).unwrap();
            let held = std::panic::catch_unwind(|| property(&input)).is_ok();
            assert!(held, "{name} does not hold for {}", file.display());
        }
    }
}
