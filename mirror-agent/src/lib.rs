//! The agent of the mirror: configuration, messages, the control socket, the link between the two
//! agents, the driver threads that carry out the mirrors' I/O, and the daemon that ties them
//! together.

pub mod agent;
pub mod check;
pub mod config;
pub mod ctl;
pub mod driver;
pub mod figures;
pub mod host;
pub mod lock;
pub mod messages;
pub mod monitor;
pub mod peer;
pub mod plant;
pub mod secret;
