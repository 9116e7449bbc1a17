//! The fixed rule ids of violations; the id of a bound is its own.

/// Rule id of a tool that the envelope does not declare.
pub const UNDECLARED_TOOL: &str = "undeclared_tool";

/// Rule id of an argument that the tool's schema does not name.
pub const UNDECLARED_ARGUMENT: &str = "undeclared_argument";

/// Rule id of arguments that violate the tool's schema.
pub const ARGS_SCHEMA: &str = "args_schema";

/// Rule id of more calls than a session may make.
pub const MAX_CALLS: &str = "max_calls_per_session";

/// Rule id of an answer that violates `[output] schema`.
pub const OUTPUT_SCHEMA: &str = "output.schema";

/// Rule id of an answer longer than `[output] max-bytes`.
pub const OUTPUT_MAX_BYTES: &str = "output.max_bytes";
