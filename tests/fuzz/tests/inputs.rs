//! Every kept input through its target, without the engine: the corpora, what once broke a
//! promise, and the seeds.

use mirror_fuzz::{TARGETS, seeds};
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    files.sort();
    files
}

fn run_all(folder: &str) -> usize {
    let mut count = 0;
    for target in TARGETS {
        for file in files(folder, target.name) {
            println!("{} {}", target.name, file.display()); // shown when it fails
            (target.run)(&fs::read(&file).expect("readable"));
            count += 1;
        }
    }
    count
}

#[test]
fn every_input_of_the_corpora_holds() {
    assert!(run_all("corpus") > 0);
}

#[test]
fn what_once_broke_a_promise_holds() {
    assert!(run_all("regressions") > 0);
}

#[test]
fn every_seed_holds() {
    for target in TARGETS {
        let seeds = seeds::of(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (n, seed) in seeds.iter().enumerate() {
            println!("{} seed {n}", target.name);
            assert!(seed.len() <= target.max_len, "longer than the engine would try");
            (target.run)(seed);
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_folder_a_target() {
    for target in TARGETS {
        assert!(!files("corpus", target.name).is_empty(), "{}", target.name);
    }
    for folder in ["corpus", "regressions"] {
        for entry in
            fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("there")
        {
            let name = entry.expect("readable").file_name();
            let name = name.to_str().expect("a name");
            assert!(mirror_fuzz::find(name).is_some(), "{folder}/{name} belongs to no target");
        }
    }
}
