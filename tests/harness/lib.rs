//! The harness: what the tests from outside share. It runs the `foreshadow` binary, stands in for the world around it on
//! loopback, and looks at what it leaves behind.

pub mod binary;
pub mod gateway;
pub mod journal_archive;
pub mod kafka;
pub mod pipeline;
pub mod process;
pub mod relay;
pub mod service;
pub mod traffic;
pub mod upstream;
pub mod verdict;
