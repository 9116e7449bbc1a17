//! The harness: what the tests from outside share. It runs the `foreshadow` binary and looks at what it leaves behind.
