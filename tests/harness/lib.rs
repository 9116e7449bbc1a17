//! Shared parts of the tests from outside: they run the `foreshadow` binary, simulate its peers on loopback, and read its output.

pub mod binary;
pub mod gateway;
pub mod journal_archive;
pub mod kafka;
pub mod pipeline;
pub mod process;
pub mod relay;
pub mod scripted_http;
pub mod service;
pub mod traffic;
pub mod upstream;
pub mod verdict;
