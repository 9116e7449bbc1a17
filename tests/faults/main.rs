//! Processes killed at random points: what was journaled is stored once, what was finished is not run again.

mod path_killed;
mod recorder_killed;
