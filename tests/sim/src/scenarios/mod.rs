//! Every sequence that broke an earlier, simpler version of the rules, as a script: named after the
//! row and the variant of the table in `docs/testing.md`.

mod alone;
mod detach;
mod history;
mod io;
mod marks;
mod operator;
mod second;

use crate::script::Scenario;

/// All of them, in the order of the table.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [alone::ALL, marks::ALL, history::ALL, io::ALL, detach::ALL, operator::ALL, second::ALL]
        .concat()
}

/// The scenario of this name.
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

/// The first block of a region.
const fn region(number: usize) -> usize {
    number * 16
}
