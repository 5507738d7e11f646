//! The commands of the manual. Each program is a thin `main`; what they share and what is tested
//! is here.

pub mod abandon;
pub mod cli;
pub mod clpconf;
pub mod clpmdchng;
pub mod clpmdconv;
pub mod clpmdctrl;
pub mod clpmdinit;
pub mod clpmdmon;
pub mod clpmdmsg;
pub mod clpmdsecret;
pub mod clpmdstat;
pub mod events;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod layout;
pub mod out;
pub mod partition;
pub mod perf;
pub mod rwait;
pub mod watch;
pub mod wipe;
