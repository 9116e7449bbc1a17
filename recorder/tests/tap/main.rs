//! The tap between real sockets: what a client sees, and what is in the store afterwards.

mod crash;
mod endings;
mod harness;
mod protocols;
mod secrets;
mod transparency;
