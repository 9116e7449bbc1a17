//! The binary on real data and on bad input: exit codes, messages, and what is left on the disk.

mod bad_input;
mod encrypted;
mod gate;
mod invariants;
mod real_data;
mod score;
mod store;
