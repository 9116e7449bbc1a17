//! The binary on real data and on bad input: exit codes, messages, and files on disk.

mod bad_input;
mod encrypted;
mod equality;
mod gate;
mod imports;
mod invariants;
mod provider;
mod real_data;
mod replay;
mod sampling;
mod score;
mod shifts;
mod snapshots;
mod store;
mod terminal;
mod vacuity;
