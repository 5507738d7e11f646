//! `vopr`: runs the simulator over many seeds, or one again.

use clap::Parser;
use mirror_core::rules::Rule;
use mirror_sim::converge::run_seed;
use mirror_sim::minimise::{Failing, kinds_left, minimise};
use mirror_sim::options::Options;
use mirror_sim::scenarios;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Tries to make two mirrors lose data.
///
/// Each run builds two simulated servers, lets an application write while disks, links, agents and
/// operators misbehave, heals everything, and demands that both sides become equal and that
/// nothing acknowledged is gone. A failure prints the seed: run it again with --seed N --verbose.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, counting up from the first.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Steps with faults in each run.
    #[arg(long, default_value_t = Options::all().steps)]
    steps: u64,
    /// No server loses power: caches survive, so no acknowledged write may be gone.
    #[arg(long)]
    no_power_loss: bool,
    /// No operator says --force.
    #[arg(long)]
    no_force: bool,
    /// Every fault there is: bad disks, replaced disks, images, rot, overlapping connections, ...
    #[arg(long)]
    everything: bool,
    /// After a failure: try up to this many seeds to do without each kind of fault and with fewer
    /// steps, and report what is left.
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    minimise: u64,
    /// No faults but these, KIND=RATE with commas between.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Changes the rate of a kind of fault: KIND=RATE (see `Options`).
    #[arg(long, value_delimiter = ',')]
    set: Vec<String>,
    /// Drop these rules of the core, with commas between (needs a build with `--features
    /// mutations`).
    #[arg(long, value_parser = rule, value_delimiter = ',')]
    drop: Vec<Rule>,
    /// List the scenarios: named sequences of steps, without chance.
    #[arg(long)]
    scenarios: bool,
    /// Play the scenario of this name instead of seeds.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Report every write that lands at this 4 KiB block.
    #[arg(long)]
    watch: Option<usize>,
    /// Print each event as it happens.
    #[arg(long)]
    verbose: bool,
    /// Lines of history to print after a failure.
    #[arg(long, default_value_t = 60)]
    tail: usize,
}

fn rule(name: &str) -> Result<Rule, String> {
    let known = || Rule::ALL.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ");
    if !mirror_core::rules::CAN_DROP {
        return Err("this build cannot drop rules".to_owned());
    }
    let found = Rule::ALL.iter().copied().find(|r| r.name() == name);
    found.ok_or_else(|| format!("one of: {}", known()))
}

fn list_scenarios() {
    for scenario in scenarios::all() {
        println!("{}\n    {}", scenario.name, scenario.about);
        for closed in scenario.closed {
            let by: Vec<_> = closed.by.iter().map(|rule| rule.name()).collect();
            println!("    without {}: {}", by.join(","), closed.otherwise);
        }
    }
}

fn play_scenario(name: &str, args: &Args) -> ExitCode {
    let Some(scenario) = scenarios::find(name) else {
        println!("no scenario is called {name}; --scenarios lists them");
        return ExitCode::FAILURE;
    };
    let played = scenario.play(args.verbose);
    let Err(text) = played.result else {
        println!("{name}: held");
        return ExitCode::SUCCESS;
    };
    if !args.verbose {
        let from = played.history.len().saturating_sub(args.tail);
        played.history[from..].iter().for_each(|line| println!("{line}"));
    }
    println!("{name} FAILED: {text}");
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "mutations")]
    mirror_core::rules::drop_rules(&args.drop);
    if args.scenarios {
        list_scenarios();
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &args.scenario {
        return play_scenario(name, &args);
    }
    let all = Options::all();
    let all = if args.everything { Options::everything() } else { all };
    let mut options = Options {
        steps: args.steps,
        verbose: args.verbose,
        watch: args.watch,
        power: if args.no_power_loss { 0 } else { all.power },
        force: if args.no_force { 0 } else { all.force },
        ..all
    };
    if !args.only.is_empty() {
        let Options { steps, watch, verbose, .. } = options;
        options = Options { steps, watch, verbose, ..Options::none() };
    }
    for setting in args.set.iter().chain(&args.only) {
        let (kind, rate) = setting.split_once('=').unwrap_or((setting, "0"));
        let mut kinds = options.kinds();
        let slot = kinds.iter_mut().find(|(name, _)| *name == kind);
        let (Some((_, slot)), Ok(rate)) = (slot, rate.parse()) else {
            println!("--set KIND=RATE: what is {setting}?");
            return ExitCode::FAILURE;
        };
        **slot = rate;
    }
    let (mut virtual_us, began) = (0_u64, Instant::now());
    for seed in args.seed..args.seed + args.runs {
        match run_seed(seed, options) {
            Ok(time) => virtual_us += time,
            Err(_) if args.minimise > 0 => {
                let small = minimise(Failing { seed, options }, args.minimise);
                println!(
                    "again: vopr --seed {} --steps {} --only {}",
                    small.seed,
                    small.options.steps,
                    kinds_left(small.options)
                );
                return ExitCode::FAILURE;
            }
            Err((text, history)) => {
                if !args.verbose {
                    let from = history.len().saturating_sub(args.tail);
                    history[from..].iter().for_each(|line| println!("{line}"));
                }
                println!("seed {seed} FAILED: {text}");
                println!(
                    "again: vopr --seed {seed} --steps {} --only {}",
                    options.steps,
                    kinds_left(options)
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}: nothing was lost", speed(args.runs, virtual_us, began.elapsed()));
    ExitCode::SUCCESS
}

/// How much was simulated, and how fast.
fn speed(runs: u64, virtual_us: u64, real: Duration) -> String {
    let (virtual_s, real_s) = (virtual_us as f64 / 1e6, real.as_secs_f64());
    format!(
        "{runs} runs, {:.1} virtual hours in {real_s:.1} s, {:.0} virtual seconds a second",
        virtual_s / 3600.0,
        virtual_s / real_s.max(1e-3),
    )
}
