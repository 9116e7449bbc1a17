//! What is stored comes back: written and read by this build, and read by it as version 1 was first written.

mod golden;
mod layout;
mod round_trip;
mod sample;
