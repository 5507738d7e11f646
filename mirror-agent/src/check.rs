//! `clpmdagent --check`: whether the configuration can be used, and what this host offers for it.

use crate::config::{Config, ConfigError};
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
    /// Why the configuration cannot be used.
    pub error: Option<String>,
    /// How each mirror is served here.
    pub mirrors: Vec<Served>,
    /// What was looked at on this host.
    pub host: Vec<Finding>,
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
                let error = Some(e.to_string());
                return Self { file, server: None, error, mirrors: Vec::new(), host };
            }
        };
        let mirrors = config.mirrors.iter().map(|m| Served {
            name: m.name.clone(),
            choice: facts.choose(offers::named(m.front_end)),
        });
        Self {
            file,
            server: Some(config.local().name.clone()),
            error: usable(config).err(),
            mirrors: mirrors.collect(),
            host,
        }
    }

    /// 0: all is good; 1: the configuration cannot be used; 3: a mirror cannot be served here as
    /// configured.
    #[must_use]
    pub fn code(&self) -> u8 {
        match &self.error {
            Some(_) => 1,
            None if self.mirrors.iter().any(|m| !m.choice.works) => 3,
            None => 0,
        }
    }
}

fn usable(config: &Config) -> Result<(), String> {
    config.check_partitions().map_err(|e| e.to_string())?;
    Access::of(config.agent.control_group.as_deref())?;
    Secret::load(&config.agent.secret_file).map(drop).map_err(|e| e.to_string())
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, &self.server) {
            (Some(error), _) => writeln!(f, "error: {error}")?,
            (None, Some(server)) => writeln!(f, "{}: good; this server is {server}", self.file)?,
            (None, None) => {}
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
        assert_eq!(named.code(), 1, "the secret is missing: {:?}", named.error);
        named.error = None;
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
        assert!(report.error.is_some() && report.server.is_none() && !report.host.is_empty());
    }
}
