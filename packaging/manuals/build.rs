//! The command lines of the daemons are defined beside their `main`, which no other program can
//! import. Their definitions are taken from there, so that there is only one of each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The daemons, and the sources of those that there may be.
const DAEMONS: [(&str, &str); 2] = [
    ("clpmdagent", "../../mirror-agent/src/main.rs"),
    ("clpmdwatch", "../../mirror-agent/src/bin/clpmdwatch.rs"),
];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (mut modules, mut list) = (String::new(), String::new());
    for (name, source) in DAEMONS {
        println!("cargo::rerun-if-changed={source}");
        if let Some(definition) = definition(Path::new(source)) {
            let _ = writeln!(
                modules,
                "mod {name} {{ use clap::Parser; use std::path::PathBuf;\n\
                 {definition}\n\
                 pub(super) fn command() -> clap::Command {{ <Args as clap::CommandFactory>::command() }} }}"
            );
            let _ = write!(list, "{name}::command(), ");
        }
    }
    let _ = writeln!(modules, "fn daemons() -> Vec<clap::Command> {{ vec![{list}] }}");
    fs::write(out.join("daemons.rs"), modules).expect("OUT_DIR can be written");
}

/// The text constants and the parser of a program's source; nothing if there is no such source.
fn definition(source: &Path) -> Option<String> {
    let text = fs::read_to_string(source).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let derive = lines
        .iter()
        .position(|l| l.starts_with("#[derive(Parser"))
        .unwrap_or_else(|| panic!("{}: no #[derive(Parser ...)]", source.display()));
    let about = lines[..derive].iter().rposition(|l| !l.starts_with("///")).map_or(0, |n| n + 1);
    let mut taken = Vec::new();
    let mut rest = lines[..about].iter();
    while let Some(line) = rest.next() {
        if line.starts_with("const ") && line.contains(": &str =") {
            taken.push(*line);
            let mut last = line;
            while !last.ends_with(';') {
                last = rest.next().expect("a constant ends");
                taken.push(last);
            }
        }
    }
    let end = about + lines[about..].iter().position(|l| *l == "}").expect("a struct ends");
    taken.extend(&lines[about..=end]);
    Some(taken.join("\n"))
}
