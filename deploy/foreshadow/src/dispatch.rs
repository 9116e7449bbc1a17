//! Runs the command that the command line names.

use crate::cli::{Cli, Command};
use crate::command::{
    analyze, archive, calibrate, demo, gate, import, record, replay, score, sessions, store,
};
use crate::console::Console;
use crate::context::Context;
use crate::exit::{Failure, Status};

/// Runs the command.
pub(crate) async fn run(cli: Cli, console: &Console) -> Result<Status, Failure> {
    let context = Context { console, config: cli.config, key_file: cli.key_file, verbose: cli.verbose };
    match cli.command {
        Command::Demo(args) => Box::pin(demo::run(args, &context)).await,
        Command::Record(args) => Box::pin(record::run(args, &context)).await,
        Command::Archive(args) => Box::pin(archive::run(args, &context)).await,
        Command::Import(args) => Box::pin(import::run(args, &context)).await,
        Command::Sessions(args) => Box::pin(sessions::run(args, &context)).await,
        Command::Store(args) => Box::pin(store::run(args, &context)).await,
        Command::Replay(args) => Box::pin(replay::run(args, &context)).await,
        Command::Score(args) => Box::pin(score::run(args, &context)).await,
        Command::Analyze(args) => Box::pin(analyze::run(args, &context)).await,
        Command::Calibrate(args) => Box::pin(calibrate::run(args, &context)).await,
        Command::Gate(args) => Box::pin(gate::run(args, &context)).await,
    }
}

#[cfg(test)]
mod tests;
