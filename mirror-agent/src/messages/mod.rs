//! The messages of the manual (§12.1, §12.2, §12.4.4), their destinations, and what a refusal
//! tells the operator.

mod events;
mod notice;
mod refusal;
mod result;
mod sink;

pub use events::{
    ActivateReason, DeactivateReason, DriverSpec, EVENTS, Event, EventSpec, EventSwitches, Level,
    RecoveryReason, StartReason, driver,
};
pub use notice::events_of;
pub use refusal::{Explained, Operation, Parties, explain};
pub use result::MdCode;
pub use sink::{EventLog, Sinks};

#[cfg(test)]
mod tests;
