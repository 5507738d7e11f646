//! The agent of the mirror: configuration, messages, the control socket, the link between the two
//! agents, and the daemon that ties the drivers of the mirrors to them.

pub mod agent;
pub mod config;
pub mod ctl;
pub mod lock;
pub mod messages;
pub mod peer;
pub mod secret;
