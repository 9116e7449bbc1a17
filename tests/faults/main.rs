//! Processes killed at random points: what was journaled is stored once, what was finished is not run again.

mod recorder_killed;
