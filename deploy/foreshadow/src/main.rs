//! The `foreshadow` binary: reads the command line, installs the TLS provider, runs one command, exits with its code.
//!
//! Everything that decides, records or replays is in the stages; here is what they may not do themselves: the
//! environment, the clock, the terminal and the exit code.

mod cli;
mod clock;
mod command;
mod keys;
mod outcome;
mod screen;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

use crate::cli::Cli;
use crate::outcome::Failure;
use crate::screen::Screen;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let screen = Screen::new(cli.json, cli.color);
    screen.start_logging(cli.verbose);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        screen.note("another TLS provider is already installed; this is a bug, please report it");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            screen
                .failure(&Failure::work(anyhow::Error::new(error).context("the async runtime cannot start")));
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(command::run(cli, &screen)) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(failure) => {
            screen.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
