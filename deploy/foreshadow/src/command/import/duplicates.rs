//! Trials that occur more than once in the files of an import.
//!
//! Which of two different outcomes of one trial is right cannot be known, and the first one would win by its position in the
//! file. So different ones are refused. Equal ones count once.

use std::collections::HashMap;

use anyhow::anyhow;
use recorder::import::{SkippedItem, Transcript};

use super::inputs::InputFile;
use crate::exit::Failure;

/// File and index of a trial's first occurrence.
type Position = (usize, usize);

/// Leaves out the repetitions of each trial. In a run, a trial is a case and a number; in a store, a name within a file.
///
/// # Errors
/// Two occurrences of a trial differ; the error names both lines.
pub(super) fn leave_out(inputs: &mut [InputFile], is_run: bool) -> Result<(), Failure> {
    let repeated = if is_run { repeated_trials(inputs)? } else { repeated_sessions(inputs)? };
    for ((file, index), first) in repeated.into_iter().rev() {
        let one = inputs[file].transcripts.remove(index);
        if is_run {
            inputs[file].duplicates += 1;
        } else {
            let detail = format!("case {} trial {} occurs twice, first on line {first}", one.case, one.trial);
            let file = &mut inputs[file];
            let name = file.source.name().to_owned();
            file.skipped.push(SkippedItem { file: name, line: one.line, field: String::new(), detail });
        }
    }
    Ok(())
}

/// Later occurrences of each case and trial number in all files, with the line of the first.
fn repeated_trials(inputs: &[InputFile]) -> Result<Vec<(Position, u64)>, Failure> {
    let mut first: HashMap<(&str, u32), Position> = HashMap::new();
    let mut repeated = Vec::new();
    for (file, input) in inputs.iter().enumerate() {
        for (index, one) in input.transcripts.iter().enumerate() {
            let Some(held) = first.get(&(one.case.as_str(), one.trial)) else {
                first.insert((&one.case, one.trial), (file, index));
                continue;
            };
            let other = &inputs[held.0].transcripts[held.1];
            refuse_difference([&inputs[held.0], input], [other, one])?;
            repeated.push(((file, index), other.line));
        }
    }
    Ok(repeated)
}

/// Later occurrences of each session name in its file, with the line of the first.
fn repeated_sessions(inputs: &[InputFile]) -> Result<Vec<(Position, u64)>, Failure> {
    let mut first: HashMap<(usize, &str, u32), Position> = HashMap::new();
    let mut repeated = Vec::new();
    for (file, input) in inputs.iter().enumerate() {
        for (index, one) in input.transcripts.iter().enumerate() {
            let Some(held) = first.get(&(file, one.name.as_str(), one.trial)) else {
                first.insert((file, &one.name, one.trial), (file, index));
                continue;
            };
            let other = &input.transcripts[held.1];
            refuse_other_slice([input, input], [other, one])?;
            repeated.push(((file, index), other.line));
        }
    }
    Ok(repeated)
}

fn refuse_difference(files: [&InputFile; 2], [first, second]: [&Transcript; 2]) -> Result<(), Failure> {
    refuse_other_slice(files, [first, second])?;
    let Some(difference) = first.difference(second) else { return Ok(()) };
    let [file, other] = files.map(|file| file.source.name());
    Err(Failure::usage(anyhow!(
        "{other}:{}: case {} trial {} occurs on line {} of {file} too, with another {difference}; which of them is right cannot \
         be known, so nothing was written: remove one of the rows, or give each run of the case its own trial number",
        second.line,
        second.case,
        second.trial,
        first.line
    )))
}

fn refuse_other_slice(files: [&InputFile; 2], [first, second]: [&Transcript; 2]) -> Result<(), Failure> {
    let differs = first
        .slices
        .iter()
        .find(|(slice, value)| second.slices.get(*slice) != Some(value))
        .or_else(|| second.slices.iter().find(|(slice, _)| !first.slices.contains_key(*slice)));
    let Some((slice, value)) = differs else { return Ok(()) };
    let [file, other] = files.map(|file| file.source.name());
    Err(Failure::usage(anyhow!(
        "{other}:{}: case {} trial {} occurs on line {} of {file} too, with another {slice}; select one, for example with \
         --where {slice}={value}; nothing was written",
        second.line,
        second.case,
        second.trial,
        first.line
    )))
}
