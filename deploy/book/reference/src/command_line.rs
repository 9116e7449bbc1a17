//! The page of the command line: every command with its arguments and flags.

use clap::{Arg, Command};

use crate::table;

/// Renders `command` and its subcommands. Flags of every command stand once, under the first heading.
#[must_use]
pub fn command_line(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let name = command.get_name().to_owned();
    let mut text = format!("# Command line\n\n{}\n\n## Options of every command\n\n", about(&command));
    text.push_str(&arguments(&command, |argument| argument.is_global_set()));
    for subcommand in command.get_subcommands() {
        section(subcommand, &name, 2, &mut text);
    }
    text
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    about.map(ToString::to_string).unwrap_or_default()
}

fn section(command: &Command, parent: &str, level: usize, text: &mut String) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    text.push_str(&format!("\n{} {name}\n\n{}\n", "#".repeat(level), about(command)));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    text.push_str(&format!("\n```text\n{usage}\n```\n"));
    let arguments = arguments(command, |argument| !argument.is_global_set());
    if !arguments.is_empty() {
        text.push_str(&format!("\n{arguments}"));
    }
    if let Some(after) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        text.push_str(&format!("\n```text\n{}\n```\n", after.to_string().trim()));
    }
    for subcommand in command.get_subcommands() {
        section(subcommand, &name, level + 1, text);
    }
}

fn arguments(command: &Command, is_wanted: impl Fn(&Arg) -> bool) -> String {
    let is_listed = |argument: &&Arg| {
        !argument.is_hide_set()
            && !matches!(argument.get_id().as_str(), "help" | "version")
            && is_wanted(argument)
    };
    let rows: Vec<Vec<String>> = command.get_arguments().filter(is_listed).map(row).collect();
    if rows.is_empty() { String::new() } else { table(&["argument", "default", "meaning"], &rows) }
}

/// Ends a help text with a full stop, which clap leaves out at the end of a short help.
fn sentence(help: &str) -> String {
    let help = help.trim_end();
    if help.is_empty() || help.ends_with(['.', ':', '?', '!']) { help.to_owned() } else { format!("{help}.") }
}

fn row(argument: &Arg) -> Vec<String> {
    let takes_value = argument.get_action().takes_values();
    let value = argument.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>"));
    let value = if takes_value { value.collect::<Vec<_>>().join(" ") } else { String::new() };
    let mut name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    if !value.is_empty() {
        name = format!("{name} {value}").trim().to_owned();
    }
    let defaults = argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy()));
    let mut default = if takes_value { defaults.collect::<Vec<_>>().join(" ") } else { String::new() };
    if argument.is_required_set() {
        "required".clone_into(&mut default);
    }
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut meaning = sentence(&help.map(ToString::to_string).unwrap_or_default());
    let values = argument.get_possible_values();
    if takes_value && !values.is_empty() {
        let listed = values.iter().filter(|value| !value.is_hide_set()).map(|value| {
            let help = value.get_help().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("`{}`{help}", value.get_name())
        });
        meaning = format!("{meaning} One of {}.", listed.collect::<Vec<_>>().join(", "));
    }
    if let Some(variable) = argument.get_env() {
        meaning = format!("{meaning} Environment: `{}`.", variable.to_string_lossy());
    }
    vec![format!("`{name}`"), default, meaning]
}
