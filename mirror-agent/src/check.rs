//! `clpmdagent --check`: whether the configuration can be used, and what this host offers for it.

use crate::config::{Config, ConfigError, Fault, Mistake};
use crate::ctl::Access;
use crate::host::offers::{self, Choice, Facts, Finding};
use crate::secret::Secret;
use serde::Serialize;
use std::fmt;

/// What a check found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The configuration file, as it was asked for.
    pub file: String,
    /// Name of this server; absent if the configuration cannot be used.
    pub server: Option<String>,
    /// Why the configuration cannot be used: everything that is wrong with it.
    pub errors: Vec<Problem>,
    /// How each mirror is served here.
    pub mirrors: Vec<Served>,
    /// What was looked at on this host.
    pub host: Vec<Finding>,
}

/// One reason why the configuration cannot be used.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The file that is to be corrected.
    pub file: String,
    /// What is wrong there.
    #[serde(flatten)]
    pub mistake: Mistake,
}

/// How a mirror is served here.
#[derive(Debug, Serialize)]
pub struct Served {
    /// Name of the mirror.
    pub name: String,
    /// How and why.
    #[serde(flatten)]
    pub choice: Choice,
}

impl CheckReport {
    /// Judges a configuration by what was found on this host.
    #[must_use]
    pub fn new(file: String, config: &Result<Config, ConfigError>, facts: &Facts) -> Self {
        let host = facts.findings();
        let config = match config {
            Ok(config) => config,
            Err(e) => {
                let errors = problems(e).collect();
                return Self { file, server: None, errors, mirrors: Vec::new(), host };
            }
        };
        let mirrors = config.mirrors.iter().map(|m| Served {
            name: m.name.clone(),
            choice: facts.choose(offers::named(m.front_end)),
        });
        Self {
            file,
            server: Some(config.local().name.clone()),
            errors: unusable(config),
            mirrors: mirrors.collect(),
            host,
        }
    }

    /// 0: all is good; 1: the configuration cannot be used; 3: a mirror cannot be served here as
    /// configured.
    #[must_use]
    pub fn code(&self) -> u8 {
        match &self.errors[..] {
            [_, ..] => 1,
            [] if self.mirrors.iter().any(|m| !m.choice.works) => 3,
            [] => 0,
        }
    }
}

fn problems(e: &ConfigError) -> impl Iterator<Item = Problem> {
    let of = |mistake: &Mistake| Problem {
        file: e.file.display().to_string(),
        mistake: mistake.clone(),
    };
    let more = (e.more > 0).then(|| whole(format!("and {} more", e.more)));
    let more = more.map(|mistake| Problem { file: e.file.display().to_string(), mistake });
    e.mistakes.iter().map(of).chain(more)
}

fn whole(what: String) -> Mistake {
    Mistake { fault: Fault::File, line: None, field: None, what }
}

/// What the text of the configuration does not show.
fn unusable(config: &Config) -> Vec<Problem> {
    let mut out: Vec<_> = config.check_partitions().err().iter().flat_map(problems).collect();
    if let Err(e) = Access::of(config.agent.control_group.as_deref()) {
        out.push(Problem { file: config.file.display().to_string(), mistake: whole(e) });
    }
    let secret = &config.agent.secret_file;
    if let Err(e) = Secret::load(secret) {
        out.push(Problem { file: secret.display().to_string(), mistake: whole(e.to_string()) });
    }
    out
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { line, what, .. } = &self.mistake;
        if !what.starts_with(&self.file) {
            write!(f, "{}: ", self.file)?;
        }
        match line {
            Some(line) => write!(f, "line {line}: {what}"),
            None => f.write_str(what),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.errors {
            writeln!(f, "error: {problem}")?;
        }
        if let ([], Some(server)) = (&self.errors[..], &self.server) {
            writeln!(f, "{}: good; this server is {server}", self.file)?;
        }
        for Served { name, choice } in &self.mirrors {
            let how = if choice.works { "served by" } else { "CANNOT be served by" };
            writeln!(f, "{name}: {how} {} ({})", choice.way.name(), choice.why)?;
        }
        for finding in &self.host {
            let mark = if finding.good { "ok     " } else { "missing" };
            writeln!(f, "{mark} {}: {}", finding.what, finding.found)?;
            if let Some(fix) = &finding.fix {
                writeln!(f, "        fix: {fix}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::offers::Node;
    use std::path::Path;

    fn report(front_end: &str, facts: &Facts) -> CheckReport {
        let text = format!(
            "[[server]]\nname = \"a\"\nmirror_connect = [\"127.0.0.1\"]\n\
             [[server]]\nname = \"b\"\nmirror_connect = [\"127.0.0.2\"]\n\
             [agent]\nsecret_file = \"/nowhere/secret\"\n\
             [[mirror]]\nname = \"md1\"\ndata_partition = \"/d1\"\ncluster_partition = \"/c1\"\n\
             fs = \"none\"\nfront_end = \"{front_end}\"\n"
        );
        let config = Config::parse(Path::new("x.toml"), &text, Some("a"), "");
        CheckReport::new("x.toml".into(), &config, facts)
    }

    fn without_ublk() -> Facts {
        Facts { ublk: Node::Absent, ublk_module: true, survival: None, ..offers::gather() }
    }

    #[test]
    fn the_code_tells_what_is_wrong() {
        let mut named = report("ublk", &without_ublk());
        assert_eq!(named.code(), 1, "the secret is missing: {:?}", named.errors);
        named.errors.clear();
        assert_eq!(named.code(), 3);
        let text = named.to_string();
        assert!(text.contains("md1: CANNOT be served by ublk (there is no /dev/ublk-control)"));
        assert!(text.contains("fix: modprobe ublk_drv"), "{text}");
        let json = serde_json::to_value(&named).expect("encodes");
        assert_eq!(json["mirrors"][0]["way"], "ublk");
        assert_eq!(json["mirrors"][0]["works"], false);
        named.mirrors.clear();
        assert_eq!(named.code(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_used_keeps_what_the_host_offers() {
        let report = report("nonsense", &without_ublk());
        assert_eq!(report.code(), 1);
        assert!(!report.errors.is_empty() && report.server.is_none() && !report.host.is_empty());
    }
}
