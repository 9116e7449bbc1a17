//! Tests of a recorder between real sockets: the bytes that a client receives, and the rows in the store afterwards.

mod crash;
mod endings;
mod harness;
mod protocols;
mod secrets;
mod transparency;
