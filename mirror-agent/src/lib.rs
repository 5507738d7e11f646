//! The mirror agent: everything around the mirrors of one server.

pub mod host;
