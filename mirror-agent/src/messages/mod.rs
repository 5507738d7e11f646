//! The messages: the [`table`] of all of them, the events that raise them, their destinations
//! (§12.3), and what a refusal tells the operator.

mod alert;
mod events;
mod mail;
mod notice;
mod refusal;
mod repeats;
mod result;
mod sink;
pub mod table;

pub use alert::AlertLog;
pub use events::{
    ActivateReason, DeactivateReason, DriverMessage, Event, EventSwitches, LaterMessage, Level,
    RecoveryReason, StartReason, driver, later,
};
pub use notice::events_of;
pub use refusal::{
    Explained, Operation, Parties, blank_and_unsure, explain, sentence, serves_the_other,
};
pub use result::MdCode;
pub use sink::{EventLog, Mail, Sinks};
pub use table::Message;

#[cfg(test)]
mod tests;
