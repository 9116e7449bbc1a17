//! The columns of each table, written out: what is on disk changes only by an edit here.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};

fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, data_type, nullable))
}

fn must(name: &str, data_type: DataType) -> FieldRef {
    field(name, data_type, false)
}

fn may(name: &str, data_type: DataType) -> FieldRef {
    field(name, data_type, true)
}

/// Microseconds since 1970, UTC.
fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

fn list(item: DataType) -> DataType {
    DataType::List(field("element", item, false))
}

fn record(fields: Vec<FieldRef>) -> DataType {
    DataType::Struct(Fields::from(fields))
}

fn text_map() -> DataType {
    let entries = record(vec![must("key", DataType::Utf8), may("value", DataType::Utf8)]);
    DataType::Map(field("key_value", entries, false), false)
}

fn body() -> DataType {
    record(vec![
        must("template", DataType::Binary),
        must("chunk_offsets", list(DataType::UInt32)),
        must("chunks", list(DataType::UInt32)),
        must("bytes", DataType::UInt64),
    ])
}

fn operation() -> DataType {
    let requested = record(vec![
        may("id", DataType::Utf8),
        must("tool", DataType::Utf8),
        must("arguments", DataType::Utf8),
    ]);
    record(vec![
        must("kind", DataType::Utf8),
        may("method", DataType::Utf8),
        may("model", DataType::Utf8),
        may("input", DataType::Utf8),
        may("output", DataType::Utf8),
        may("finish_reason", DataType::Utf8),
        must("requested", list(requested)),
        may("tool", DataType::Utf8),
        may("arguments", DataType::Utf8),
        may("arguments_verbatim", DataType::Utf8),
        may("arguments_digest", DataType::FixedSizeBinary(16)),
        may("result", DataType::Utf8),
        may("is_error", DataType::Boolean),
        must("effect", DataType::Utf8),
        may("reversible", DataType::Boolean),
        may("idempotent", DataType::Boolean),
    ])
}

fn headers() -> DataType {
    list(record(vec![must("name", DataType::Utf8), must("value", DataType::Utf8)]))
}

fn usage() -> DataType {
    record(vec![
        may("input_tokens", DataType::UInt64),
        may("output_tokens", DataType::UInt64),
        may("cached_tokens", DataType::UInt64),
        may("cost_usd", DataType::Float64),
    ])
}

fn identifiers() -> DataType {
    list(record(vec![
        must("name", DataType::Utf8),
        must("value", DataType::Utf8),
        must("source", DataType::Utf8),
        must("confidence", DataType::Utf8),
        must("chosen", DataType::Boolean),
    ]))
}

fn links() -> DataType {
    list(record(vec![
        must("to", DataType::Utf8),
        must("kind", DataType::Utf8),
        must("source", DataType::Utf8),
        must("confidence", DataType::Utf8),
    ]))
}

fn redactions() -> DataType {
    list(record(vec![
        must("kind", DataType::Utf8),
        must("location", DataType::Utf8),
        must("count", DataType::UInt32),
    ]))
}

pub(super) fn exchanges() -> Vec<FieldRef> {
    vec![
        must("exchange", DataType::Utf8),
        must("tenant", DataType::Utf8),
        must("agent", DataType::Utf8),
        may("build", DataType::Utf8),
        must("session", DataType::Utf8),
        must("incarnation", DataType::Utf8),
        must("seq", DataType::UInt32),
        must("incarnation_seq", DataType::UInt64),
        must("edge", DataType::Utf8),
        must("protocol", DataType::Utf8),
        must("started_at", time()),
        must("session_started_at", time()),
        may("first_byte_us", DataType::UInt64),
        may("duration_us", DataType::UInt64),
        must("frame_gaps_us", list(DataType::UInt32)),
        must("ending", DataType::Utf8),
        may("ending_detail", DataType::Utf8),
        may("http_method", DataType::Utf8),
        may("path", DataType::Utf8),
        may("status", DataType::UInt16),
        must("request_headers", headers()),
        must("response_headers", headers()),
        must("request", body()),
        must("response", body()),
        must("operation", operation()),
        must("usage", usage()),
        must("identifiers", identifiers()),
        must("links", links()),
        must("redactions", redactions()),
        may("envelope", DataType::Utf8),
    ]
}

pub(super) fn chunks() -> Vec<FieldRef> {
    vec![
        must("chunk", DataType::UInt32),
        must("digest", DataType::FixedSizeBinary(16)),
        may("bytes", DataType::Binary),
        may("stored_in", DataType::Utf8),
    ]
}

pub(super) fn sessions() -> Vec<FieldRef> {
    vec![
        must("tenant", DataType::Utf8),
        must("agent", DataType::Utf8),
        may("build", DataType::Utf8),
        must("session", DataType::Utf8),
        must("incarnation", DataType::Utf8),
        must("started_at", time()),
        must("closed_at", time()),
        must("reason", DataType::Utf8),
        must("turns", DataType::UInt32),
        must("model_calls", DataType::UInt32),
        must("tool_calls", DataType::UInt32),
        may("last_seq", DataType::UInt32),
        must("shed", DataType::UInt32),
        may("shed_reason", DataType::Utf8),
        may("case", DataType::Utf8),
        may("success", DataType::Boolean),
        must("labels", text_map()),
    ]
}

fn fidelity() -> DataType {
    let counts = ["exact", "normalised", "overlaid", "derived", "live", "faulted", "missed"];
    record(counts.iter().map(|name| must(name, DataType::UInt32)).collect())
}

fn divergences() -> DataType {
    list(record(vec![
        must("seq", DataType::UInt32),
        must("kind", DataType::Utf8),
        may("tool", DataType::Utf8),
        must("detail", DataType::Utf8),
    ]))
}

pub(super) fn trials() -> Vec<FieldRef> {
    vec![
        must("tenant", DataType::Utf8),
        must("agent", DataType::Utf8),
        may("build", DataType::Utf8),
        must("lane", DataType::Utf8),
        must("case", DataType::Utf8),
        must("trial", DataType::UInt32),
        must("session", DataType::Utf8),
        may("seed", DataType::UInt64),
        may("started_at", time()),
        may("duration_us", DataType::UInt64),
        must("ending", DataType::Utf8),
        may("ending_detail", DataType::Utf8),
        may("success", DataType::Boolean),
        may("success_source", DataType::Utf8),
        may("answer", DataType::Utf8),
        may("input_tokens", DataType::UInt64),
        may("output_tokens", DataType::UInt64),
        may("cost_usd", DataType::Float64),
        must("exchanges", DataType::UInt32),
        must("has_transcript", DataType::Boolean),
        may("fidelity", fidelity()),
        must("divergences", divergences()),
        may("fault_plan", DataType::Utf8),
        may("complete", DataType::Boolean),
        must("slices", text_map()),
    ]
}

pub(super) fn scores() -> Vec<FieldRef> {
    vec![
        must("tenant", DataType::Utf8),
        must("agent", DataType::Utf8),
        must("lane", DataType::Utf8),
        must("case", DataType::Utf8),
        must("trial", DataType::UInt32),
        must("session", DataType::Utf8),
        may("trial_started_at", time()),
        must("evaluator", DataType::Utf8),
        must("kind", DataType::Utf8),
        must("priority", DataType::UInt32),
        must("evaluator_digest", DataType::Utf8),
        must("scored_at", time()),
        may("success", DataType::Boolean),
        may("value", DataType::Float64),
        may("reason", DataType::Utf8),
        may("slice", DataType::Utf8),
        may("model", DataType::Utf8),
        may("input_tokens", DataType::UInt64),
        may("output_tokens", DataType::UInt64),
        may("cost_usd", DataType::Float64),
        may("error", DataType::Utf8),
    ]
}

pub(super) fn embeddings() -> Vec<FieldRef> {
    vec![
        must("tenant", DataType::Utf8),
        must("agent", DataType::Utf8),
        must("lane", DataType::Utf8),
        must("case", DataType::Utf8),
        must("trial", DataType::UInt32),
        must("session", DataType::Utf8),
        may("trial_started_at", time()),
        may("turn", DataType::UInt32),
        must("model", DataType::Utf8),
        must("model_digest", DataType::Utf8),
        may("embedded_at", time()),
        may("windows", DataType::UInt32),
        must("vector", list(DataType::Float32)),
    ]
}
