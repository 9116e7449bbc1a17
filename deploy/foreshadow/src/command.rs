//! One module per command: it parses its arguments, calls one service and prints the result. No command calls another.

pub(crate) mod analyze;
pub(crate) mod archive;
pub(crate) mod calibrate;
pub(crate) mod demo;
pub(crate) mod gate;
pub(crate) mod import;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod score;
pub(crate) mod sessions;
pub(crate) mod store;
