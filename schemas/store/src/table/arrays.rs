//! Rows of the tables that traffic fills, as arrays.
//!
//! Written out column by column: nearly all that an archiver writes goes through here, and a serializer that is told of
//! one value at a time takes several times as long. The other tables are small, and go through one.

use std::sync::Arc;

use arrow_array::builder::GenericByteBuilder;
use arrow_array::types::{
    BinaryType, ByteArrayType, Float64Type, TimestampMicrosecondType, UInt16Type, UInt32Type, UInt64Type,
    Utf8Type,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, RecordBatch,
    StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, FieldRef, Fields, Schema};

use super::{Chunk, Table, TableError};
use schemas::body::Body;
use schemas::embedding::Embedding;
use schemas::exchange::{Exchange, Header, Identifier, Link, Operation, Redaction, RequestedCall, Usage};
use schemas::id::BuildId;
use schemas::keys::{DIGEST_BYTES, Digest};
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::Trial;

/// A row of a table.
pub trait Row: Sized {
    /// Rows as arrays of these columns, which are the table's.
    ///
    /// # Errors
    /// A row does not fit them.
    fn batch(table: Table, columns: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, TableError>;

    /// About how many bytes of text it has in its largest column at most.
    fn payload_bytes(&self) -> usize {
        0
    }

    /// What it has in the column of bodies.
    fn body(&self) -> &[u8] {
        &[]
    }
}

macro_rules! rows_by_serde {
    ($($row:ident),*) => {
        $(impl Row for $row {
            fn batch(table: Table, columns: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, TableError> {
                serde_arrow::to_record_batch(columns, &rows)
                    .map_err(|source| TableError::Rows { table: table.as_str(), source })
            }
        })*
    };
}

rows_by_serde!(SessionClose, Trial, Score, Embedding);

impl Row for Chunk {
    fn batch(_: Table, columns: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, TableError> {
        let rows: Vec<&Self> = rows.iter().collect();
        let arrays = vec![
            number::<_, UInt32Type>(&rows, |row| Some(row.chunk)),
            digest(&rows, |row| Some(row.digest))?,
            bytes(&rows, |row| row.bytes.as_deref()),
            text(&rows, |row| row.stored_in.as_deref()),
        ];
        Ok(RecordBatch::try_new(Arc::new(Schema::new(columns.to_vec())), arrays)?)
    }

    fn payload_bytes(&self) -> usize {
        self.body().len()
    }

    fn body(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl Row for Exchange<u32> {
    fn batch(_: Table, columns: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, TableError> {
        let row = |exchange| ExchangeWithChunkRows {
            exchange,
            request: &exchange.request.chunks,
            response: &exchange.response.chunks,
        };
        exchanges(columns, &rows.iter().map(row).collect::<Vec<_>>())
    }

    fn payload_bytes(&self) -> usize {
        payload_bytes(self)
    }
}

/// An exchange whose references are row numbers that stand elsewhere, one for each of its own.
#[derive(Debug)]
pub struct ExchangeWithChunkRows<'a, R = Digest> {
    /// The exchange.
    pub exchange: &'a Exchange<R>,
    /// For each piece of its request, its row in the chunks file.
    pub request: &'a [u32],
    /// The same of its response.
    pub response: &'a [u32],
}

impl<R> Row for ExchangeWithChunkRows<'_, R> {
    fn batch(_: Table, columns: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, TableError> {
        exchanges(columns, rows)
    }

    fn payload_bytes(&self) -> usize {
        payload_bytes(self.exchange)
    }
}

fn payload_bytes<R>(exchange: &Exchange<R>) -> usize {
    let Operation { input, output, arguments, arguments_verbatim, result, requested, .. } =
        &exchange.operation;
    let texts = [input, output, arguments, arguments_verbatim, result].into_iter().flatten().map(String::len);
    let requested = requested.iter().map(|call| call.arguments.len());
    exchange.request.template.len() + exchange.response.template.len() + texts.chain(requested).sum::<usize>()
}

type Built = Result<ArrayRef, ArrowError>;

fn exchanges<R>(
    columns: &[FieldRef],
    rows: &[ExchangeWithChunkRows<'_, R>],
) -> Result<RecordBatch, TableError> {
    let exchanges: Vec<&Exchange<R>> = rows.iter().map(|row| row.exchange).collect();
    let arrays = columns.iter().map(|column| match column.name().as_str() {
        "request" => body(column, &each(&exchanges, |row| &row.request), rows.iter().map(|row| row.request)),
        "response" => {
            body(column, &each(&exchanges, |row| &row.response), rows.iter().map(|row| row.response))
        }
        _ => exchange_column(column, &exchanges),
    });
    let arrays = arrays.collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(columns.to_vec())), arrays)?)
}

fn exchange_column<R>(column: &FieldRef, rows: &[&Exchange<R>]) -> Built {
    Ok(match column.name().as_str() {
        "exchange" => text(rows, |row| Some(row.exchange.as_str())),
        "tenant" => text(rows, |row| Some(row.tenant.as_str())),
        "agent" => text(rows, |row| Some(row.agent.as_str())),
        "build" => text(rows, |row| row.build.as_ref().map(BuildId::as_str)),
        "session" => text(rows, |row| Some(row.session.as_str())),
        "incarnation" => text(rows, |row| Some(row.incarnation.as_str())),
        "seq" => number::<_, UInt32Type>(rows, |row| Some(row.seq)),
        "incarnation_seq" => number::<_, UInt64Type>(rows, |row| Some(row.incarnation_seq)),
        "edge" => text(rows, |row| Some(row.edge.into())),
        "protocol" => text(rows, |row| Some(row.protocol.into())),
        "started_at" => time(rows, |row| row.started_at),
        "session_started_at" => time(rows, |row| row.session_started_at),
        "first_byte_us" => number::<_, UInt64Type>(rows, |row| row.first_byte_us),
        "duration_us" => number::<_, UInt64Type>(rows, |row| row.duration_us),
        "frame_gaps_us" => numbers(column, rows.iter().map(|row| row.frame_gaps_us.as_slice()))?,
        "ending" => text(rows, |row| Some(row.ending.into())),
        "ending_detail" => text(rows, |row| row.ending_detail.as_deref()),
        "http_method" => text(rows, |row| row.http_method.as_deref()),
        "path" => text(rows, |row| row.path.as_deref()),
        "status" => number::<_, UInt16Type>(rows, |row| row.status),
        "request_headers" => list(column, rows, |row| &row.request_headers, headers)?,
        "response_headers" => list(column, rows, |row| &row.response_headers, headers)?,
        "operation" => operation(column, &each(rows, |row| &row.operation))?,
        "usage" => usage(column, &each(rows, |row| &row.usage))?,
        "identifiers" => list(column, rows, |row| &row.identifiers, identifiers)?,
        "links" => list(column, rows, |row| &row.links, links)?,
        "redactions" => list(column, rows, |row| &row.redactions, redactions)?,
        "envelope" => text(rows, |row| row.envelope.as_deref()),
        other => return Err(ArrowError::SchemaError(format!("no exchange has a {other}"))),
    })
}

fn headers(column: &FieldRef, rows: &[&Header]) -> Built {
    let (name, value) = (text(rows, |row| Some(&row.name)), text(rows, |row| Some(&row.value)));
    record(column, vec![name, value])
}

fn body<'a, R>(
    column: &FieldRef,
    rows: &[&Body<R>],
    pieces: impl Iterator<Item = &'a [u32]> + Clone,
) -> Built {
    let [_, chunk_offsets, chunks, _] = inner(column)?.as_ref() else { return Err(unlike(column)) };
    record(
        column,
        vec![
            bytes(rows, |row| Some(&row.template)),
            numbers(chunk_offsets, rows.iter().map(|row| row.chunk_offsets.as_slice()))?,
            numbers(chunks, pieces)?,
            number::<_, UInt64Type>(rows, |row| Some(row.bytes)),
        ],
    )
}

fn operation(column: &FieldRef, rows: &[&Operation]) -> Built {
    let calls = inner(column)?.iter().find(|field| field.name() == "requested");
    record(
        column,
        vec![
            text(rows, |row| Some(row.kind.into())),
            text(rows, |row| row.method.as_deref()),
            text(rows, |row| row.model.as_deref()),
            text(rows, |row| row.input.as_deref()),
            text(rows, |row| row.output.as_deref()),
            text(rows, |row| row.finish_reason.as_deref()),
            list(calls.ok_or_else(|| unlike(column))?, rows, |row| &row.requested, requested)?,
            text(rows, |row| row.tool.as_deref()),
            text(rows, |row| row.arguments.as_deref()),
            text(rows, |row| row.arguments_verbatim.as_deref()),
            digest(rows, |row| row.arguments_digest)?,
            text(rows, |row| row.result.as_deref()),
            flag(rows, |row| row.is_error),
            text(rows, |row| Some(row.effect.into())),
            flag(rows, |row| row.reversible),
            flag(rows, |row| row.idempotent),
        ],
    )
}

fn requested(column: &FieldRef, rows: &[&RequestedCall]) -> Built {
    record(
        column,
        vec![
            text(rows, |row| row.id.as_deref()),
            text(rows, |row| Some(&row.tool)),
            text(rows, |row| Some(&row.arguments)),
        ],
    )
}

fn usage(column: &FieldRef, rows: &[&Usage]) -> Built {
    record(
        column,
        vec![
            number::<_, UInt64Type>(rows, |row| row.input_tokens),
            number::<_, UInt64Type>(rows, |row| row.output_tokens),
            number::<_, UInt64Type>(rows, |row| row.cached_tokens),
            number::<_, Float64Type>(rows, |row| row.cost_usd),
        ],
    )
}

fn identifiers(column: &FieldRef, rows: &[&Identifier]) -> Built {
    record(
        column,
        vec![
            text(rows, |row| Some(&row.name)),
            text(rows, |row| Some(&row.value)),
            text(rows, |row| Some(&row.source)),
            text(rows, |row| Some(row.confidence.into())),
            flag(rows, |row| Some(row.chosen)),
        ],
    )
}

fn links(column: &FieldRef, rows: &[&Link]) -> Built {
    record(
        column,
        vec![
            text(rows, |row| Some(row.to.as_str())),
            text(rows, |row| Some(&row.kind)),
            text(rows, |row| Some(&row.source)),
            text(rows, |row| Some(row.confidence.into())),
        ],
    )
}

fn redactions(column: &FieldRef, rows: &[&Redaction]) -> Built {
    record(
        column,
        vec![
            text(rows, |row| Some(&row.kind)),
            text(rows, |row| Some(&row.location)),
            number::<_, UInt32Type>(rows, |row| Some(row.count)),
        ],
    )
}

fn each<'a, R, T>(rows: &[&'a R], get: impl Fn(&'a R) -> &'a T) -> Vec<&'a T> {
    rows.iter().map(|row| get(row)).collect()
}

fn text<'a, R>(rows: &[&'a R], get: impl Fn(&'a R) -> Option<&'a str>) -> ArrayRef {
    sized::<_, Utf8Type>(rows, get)
}

fn bytes<'a, R>(rows: &[&'a R], get: impl Fn(&'a R) -> Option<&'a [u8]>) -> ArrayRef {
    sized::<_, BinaryType>(rows, get)
}

/// Measured before it is filled: an array that grows copies what it has again and again.
fn sized<'a, R, T: ByteArrayType<Offset = i32>>(
    rows: &[&'a R],
    get: impl Fn(&'a R) -> Option<&'a T::Native>,
) -> ArrayRef {
    let length = |value: &T::Native| AsRef::<[u8]>::as_ref(value).len();
    let bytes = rows.iter().filter_map(|row| get(row)).map(length).sum();
    let mut array = GenericByteBuilder::<T>::with_capacity(rows.len(), bytes);
    rows.iter().for_each(|row| array.append_option(get(row)));
    Arc::new(array.finish())
}

fn flag<R>(rows: &[&R], get: impl Fn(&R) -> Option<bool>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| get(row)).collect::<BooleanArray>())
}

fn number<R, P: ArrowPrimitiveType>(rows: &[&R], get: impl Fn(&R) -> Option<P::Native>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| get(row)).collect::<PrimitiveArray<P>>())
}

fn time<R>(rows: &[&R], get: impl Fn(&R) -> i64) -> ArrayRef {
    let times = PrimitiveArray::<TimestampMicrosecondType>::from_iter_values(rows.iter().map(|row| get(row)));
    Arc::new(times.with_timezone("UTC"))
}

fn digest<R>(rows: &[&R], get: impl Fn(&R) -> Option<Digest>) -> Built {
    let digests = rows.iter().map(|row| get(row).map(|Digest(bytes)| bytes));
    let length = i32::try_from(DIGEST_BYTES).unwrap_or(i32::MAX);
    Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(digests, length)?))
}

fn numbers<'a>(column: &FieldRef, rows: impl Iterator<Item = &'a [u32]> + Clone) -> Built {
    let mut items = Vec::with_capacity(rows.clone().map(<[u32]>::len).sum());
    rows.clone().for_each(|row| items.extend_from_slice(row));
    lists(column, rows.map(<[u32]>::len), Arc::new(PrimitiveArray::<UInt32Type>::new(items.into(), None)))
}

fn list<'a, R, T: 'a>(
    column: &FieldRef,
    rows: &[&'a R],
    get: impl Fn(&'a R) -> &'a Vec<T>,
    build: impl Fn(&FieldRef, &[&'a T]) -> Built,
) -> Built {
    let items: Vec<&T> = rows.iter().flat_map(|row| get(row)).collect();
    let DataType::List(item) = column.data_type() else { return Err(unlike(column)) };
    lists(column, rows.iter().map(|row| get(row).len()), build(item, &items)?)
}

fn lists(column: &FieldRef, lengths: impl IntoIterator<Item = usize>, items: ArrayRef) -> Built {
    let DataType::List(item) = column.data_type() else { return Err(unlike(column)) };
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, items, None)?))
}

fn record(column: &FieldRef, arrays: Vec<ArrayRef>) -> Built {
    Ok(Arc::new(StructArray::try_new(inner(column)?.clone(), arrays, None)?))
}

fn inner(column: &FieldRef) -> Result<&Fields, ArrowError> {
    match column.data_type() {
        DataType::Struct(fields) => Ok(fields),
        _ => Err(unlike(column)),
    }
}

fn unlike(column: &FieldRef) -> ArrowError {
    ArrowError::SchemaError(format!("column {} is a {}", column.name(), column.data_type()))
}
