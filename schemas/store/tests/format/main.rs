//! The storage format: round trips, golden files of the current version, and the layout of files.

mod golden;
mod layout;
mod round_trip;
mod sample;
