//! The agent of one server: what drives its mirrors.

pub mod driver;
