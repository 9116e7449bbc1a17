//! The pages of the command line and of the exit codes in the book.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::exit::{Failure, Status};

#[test]
fn the_book_lists_every_command_and_flag() {
    reference::assert_page("command-line.md", &reference::command_line(&Cli::command()));
}

#[test]
fn the_book_lists_every_exit_code() {
    let failure = || anyhow::anyhow!("a failure");
    let codes = [
        (Status::Success.code(), "success", "approve, or the command did its work"),
        (Failure::Work(failure()).code(), "failed", "the work failed; stderr says where and what to do next"),
        (Failure::Usage(failure()).code(), "usage", "the command line or a configuration file is wrong"),
        (Status::Block.code(), "block", "the candidate must not be deployed"),
        (
            Status::Inconclusive.code(),
            "inconclusive",
            "the sessions do not decide; `need` in `verdict.json` says how many would",
        ),
    ];
    let mut rows =
        codes.map(|(code, name, meaning)| vec![code.to_string(), name.to_owned(), meaning.to_owned()]);
    rows.sort();
    let table = reference::table(&["exit code", "name", "meaning"], &rows);
    let text = format!(
        "# Exit codes\n\nEvery command ends with one of these codes. Only `analyze` and `gate` end with 3 or 4.\n\n{table}"
    );
    reference::assert_page("exit-codes.md", &text);
}
