//! The direction table against its rules (every pair of a large product of cards), and by name:
//! the cards that each known sequence of events leaves, and the row they must get.

mod cards;
mod examples;
mod holes;
mod rules;
mod space;
