//! The configuration file.

use mirror_agent::config::{Config, FileSystem};
use std::path::Path;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = Path::new("clpmd.toml");
    let config = match Config::parse(file, text, None, "server1") {
        Ok(config) => config,
        Err(error) => {
            let lines = error.to_string();
            assert!(lines.starts_with("clpmd.toml: ") && lines.len() < 102 * (2048 + 64));
            assert!((1..=100).contains(&error.mistakes.len()));
            return;
        }
    };
    assert_ne!(config.servers[0].name, config.servers[1].name);
    assert!(!config.mirrors.is_empty());
    for server in &config.servers {
        assert!((1..=4).contains(&server.mirror_connect.len()));
    }
    for mirror in &config.mirrors {
        assert!(mirror.nmp > 0 && mirror.port > 0 && !mirror.name.is_empty());
        assert_eq!(mirror.mount.is_none(), mirror.fs == FileSystem::None);
        assert!(mirror.partitions.iter().all(|p| p.data != p.cluster));
        assert!(mirror.timing.peer >= 2 * mirror.timing.heartbeat);
    }
}
