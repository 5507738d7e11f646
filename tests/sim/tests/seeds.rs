//! Seeds that must hold: the same ones every time, and some that nobody has run before.

use mirror_sim::converge::run_seed;
use mirror_sim::options::Options;
use std::time::{SystemTime, UNIX_EPOCH};

fn hold(name: &str, options: Options, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err((text, history)) = run_seed(seed, options) {
            let tail = &history[history.len().saturating_sub(40)..];
            panic!("{name}, seed {seed}: {text}\n{}", tail.join("\n"));
        }
    }
}

/// A seed that differs from run to run; a failure prints it.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() << 16)
}

fn no_force() -> Options {
    Options { force: 0, ..Options::all() }
}

fn no_power_loss() -> Options {
    Options { power: 0, ..Options::all() }
}

#[test]
fn power_loss_without_force() {
    hold("--no-force", no_force(), 1..201);
}

#[test]
fn force_without_power_loss() {
    hold("--no-power-loss", no_power_loss(), 1..201);
}

#[test]
fn force_and_power_loss() {
    hold("default", Options::all(), 1..101);
}

#[test]
fn everything() {
    hold("--everything", Options::everything(), 1..201);
}

#[test]
fn fresh_seeds() {
    let seed = fresh();
    println!("fresh seeds from {seed} on");
    hold("--no-force", no_force(), seed..seed + 40);
    hold("--no-power-loss", no_power_loss(), seed..seed + 40);
    hold("--everything", Options::everything(), seed..seed + 40);
}

#[test]
fn a_seed_replays_a_run_exactly() {
    for options in [no_force(), Options::everything()] {
        let mut worlds = [0, 1].map(|_| mirror_sim::world::World::new(5, options));
        for world in &mut worlds {
            world.run().expect("a seed that holds");
        }
        let [a, b] = worlds;
        assert_eq!(a.history, b.history);
    }
}
