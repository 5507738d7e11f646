//! Steps in place of chance: a [`Stage`] is the simulated world with a hand on each operation and
//! frame, a [`Scenario`] a named sequence of steps on it.
//!
//! While a script runs, every operation takes the same short time, nothing fails by itself, and
//! the application, the operator and fate do only what a step says. The oracle and the invariants
//! watch as ever; the first thing that does not hold ends the script, and its remaining steps do
//! nothing. At the end everything that is held lands, what is down is started, and both sides must
//! become equal and hold all that was acknowledged, as at the end of a random run.

pub(crate) mod hold;
mod scenario;
mod stage;
mod steps;

pub use hold::{Hold, Io, Keep};
pub use scenario::{Closed, Played, Scenario};
pub use stage::{A, B, Stage, Ticket};
