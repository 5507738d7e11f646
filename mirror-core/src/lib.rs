//! The mirror's logic without I/O: no sockets, files, threads, clocks or randomness of its own.
//!
//! Everything that decides is here, as `event + time -> actions`; the driver loop and the
//! simulator feed the same code. Start reading at [`io`] (the boundary) and [`record`] (what a side
//! knows durably).

pub mod bitmap;
pub mod both_active;
pub mod buf;
pub mod command;
pub mod direction;
pub mod disk;
pub mod io;
pub mod marks;
pub mod mirror;
pub mod ranges;
pub mod record;
pub mod rules;
pub mod status;
pub mod units;
pub mod wire;
