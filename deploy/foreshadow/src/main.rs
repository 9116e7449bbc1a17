//! The `foreshadow` binary: parses the command line, installs the TLS provider, runs one command, returns its exit code.
//!
//! Recording, replaying, scoring and deciding are library crates. The binary adds what they must not touch: environment,
//! clock, terminal and exit code.

mod cli;
mod clock;
mod command;
mod console;
mod context;
mod dispatch;
mod exit;
mod format;
mod keys;
#[cfg(test)]
mod reference;
mod resources;
mod signals;
mod verdict_text;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

use crate::cli::Cli;
use crate::console::Console;
use crate::exit::Failure;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(cli.json, cli.color);
    console.start_logging(cli.verbose);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        console.note("another TLS provider is already installed; this is a bug, please report it");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console
                .failure(&Failure::work(anyhow::Error::new(error).context("the async runtime cannot start")));
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(dispatch::run(cli, &console)) {
        Ok(status) => ExitCode::from(status.code()),
        Err(failure) => {
            console.failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}
