//! The small files of an agent: the secret and the state of a carrier.

use mirror_agent::host::carrier::check_state_file;
use mirror_agent::secret::{SECRET_MIN, Secret};

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(secret) = Secret::parse(bytes.to_vec()) {
        assert!(secret.bytes().len() >= SECRET_MIN && bytes.starts_with(secret.bytes()));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        mirror_core::wire::Secret::new(secret.bytes()).expect("good enough for the wire");
    }
    let _ = check_state_file(bytes);
}
