//! Rows of the tables as Arrow arrays, column by column.
//!
//! A row serializer that visits one value at a time takes several times as long, and an archiver spends much of its time
//! here. The walk over the values comes from the row type's declaration (`schemas::columns`).

use std::sync::Arc;

use arrow_array::builder::GenericByteBuilder;
use arrow_array::types::{
    BinaryType, ByteArrayType, Float32Type, Float64Type, TimestampMicrosecondType, UInt16Type, UInt32Type,
    UInt64Type, Utf8Type,
};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, ListArray, MapArray, PrimitiveArray, RecordBatch,
    StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, FieldRef, Fields, Schema};
use schemas::body::Chunk;
use schemas::columns::{ChunkReference, Column, ColumnBuilder, ColumnValue, Columns, LogicalType};
use schemas::embedding::Embedding;
use schemas::exchange::{Exchange, Operation};
use schemas::keys::Digest;
use schemas::score::Score;
use schemas::session::SessionClose;
use schemas::trial::Trial;

use super::fields::{element, fields, map_entries};

/// A row of a table.
pub trait TableRow: Sized {
    /// Converts rows to arrays of these fields, which are the table's.
    ///
    /// # Errors
    /// A row does not fit them.
    fn batch(fields: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, ArrowError>;

    /// Estimated bytes of the row's payload, which bound a batch; 0 for rows that are always small.
    fn payload_bytes(&self) -> usize {
        0
    }

    /// The bytes of a body stored in this row.
    fn body(&self) -> &[u8] {
        &[]
    }
}

macro_rules! small_rows {
    ($($row:ident),*) => {
        $(impl TableRow for $row {
            fn batch(fields: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, ArrowError> {
                batch(fields, rows.iter(), &mut ArrowBuilder::default())
            }
        })*
    };
}

small_rows!(SessionClose, Trial, Score, Embedding);

impl TableRow for Chunk {
    fn batch(fields: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        batch(fields, rows.iter(), &mut ArrowBuilder::default())
    }

    fn payload_bytes(&self) -> usize {
        self.body().len()
    }

    fn body(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl TableRow for Exchange<u32> {
    fn batch(fields: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        batch(fields, rows.iter(), &mut ArrowBuilder::default())
    }

    fn payload_bytes(&self) -> usize {
        payload_bytes(self)
    }
}

/// An exchange whose chunks are named by digest, with their row numbers in the chunks file.
#[derive(Debug)]
pub struct ExchangeWithChunkRows<'a, R = Digest> {
    /// The exchange.
    pub exchange: &'a Exchange<R>,
    /// For each chunk of the request, its row in the chunks file.
    pub request: &'a [u32],
    /// For each chunk of the response, its row in the chunks file.
    pub response: &'a [u32],
}

impl<R: ChunkReference> TableRow for ExchangeWithChunkRows<'_, R> {
    fn batch(fields: &[FieldRef], rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        // The columns of a table are built in their order: `request` of all rows, then `response` of all rows.
        let requests = rows.iter().map(|row| row.request);
        let chunk_rows: Vec<&[u32]> = requests.chain(rows.iter().map(|row| row.response)).collect();
        batch(fields, rows.iter().map(|row| row.exchange), &mut ArrowBuilder { chunk_rows: &chunk_rows })
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

fn batch<'a, T: Columns + 'a>(
    fields: &[FieldRef],
    rows: impl Iterator<Item = &'a T>,
    builder: &mut ArrowBuilder<'_>,
) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<Option<&T>> = rows.map(Some).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), T::build(builder, &rows)?)
}

/// Builds Arrow arrays of declared columns.
#[derive(Default)]
struct ArrowBuilder<'a> {
    /// Row numbers for bodies whose chunks are named by digest, in the order in which their columns are built.
    chunk_rows: &'a [&'a [u32]],
}

impl ColumnBuilder for ArrowBuilder<'_> {
    type Array = ArrayRef;
    type Error = ArrowError;

    fn text<'a>(&mut self, values: impl Iterator<Item = Option<&'a str>> + Clone) -> ArrayRef {
        sized::<Utf8Type>(values)
    }

    fn binary<'a>(&mut self, values: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> ArrayRef {
        sized::<BinaryType>(values)
    }

    fn fixed_binary<'a, const N: usize>(
        &mut self,
        values: impl Iterator<Item = Option<&'a [u8; N]>>,
    ) -> Result<ArrayRef, ArrowError> {
        let length = i32::try_from(N).map_err(|_| ArrowError::InvalidArgumentError(format!("{N} bytes")))?;
        Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, length)?))
    }

    fn boolean(&mut self, values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
        Arc::new(values.collect::<BooleanArray>())
    }

    fn uint16(&mut self, values: impl Iterator<Item = Option<u16>>) -> ArrayRef {
        Arc::new(values.collect::<PrimitiveArray<UInt16Type>>())
    }

    fn uint32(&mut self, values: impl Iterator<Item = Option<u32>>) -> ArrayRef {
        Arc::new(values.collect::<PrimitiveArray<UInt32Type>>())
    }

    fn uint64(&mut self, values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
        Arc::new(values.collect::<PrimitiveArray<UInt64Type>>())
    }

    fn float32(&mut self, values: impl Iterator<Item = Option<f32>>) -> ArrayRef {
        Arc::new(values.collect::<PrimitiveArray<Float32Type>>())
    }

    fn float64(&mut self, values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
        Arc::new(values.collect::<PrimitiveArray<Float64Type>>())
    }

    fn timestamp(&mut self, values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
        Arc::new(values.collect::<PrimitiveArray<TimestampMicrosecondType>>().with_timezone("UTC"))
    }

    fn list(
        &mut self,
        item: &'static LogicalType,
        lengths: impl Iterator<Item = usize>,
        items: ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(element(item), offsets, items, None)?))
    }

    fn structure(
        &mut self,
        columns: &'static [Column],
        arrays: Vec<ArrayRef>,
        valid: impl ExactSizeIterator<Item = bool>,
    ) -> Result<ArrayRef, ArrowError> {
        let valid: NullBuffer = valid.collect();
        let nulls = (valid.null_count() > 0).then_some(valid);
        Ok(Arc::new(StructArray::try_new(Fields::from(fields(columns)), arrays, nulls)?))
    }

    fn text_map(
        &mut self,
        lengths: impl Iterator<Item = usize>,
        keys: ArrayRef,
        values: ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        let (field, entries) = map_entries();
        let entries = StructArray::try_new(entries, vec![keys, values], None)?;
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, None, false)?))
    }

    fn chunk_rows(&mut self, bodies: usize) -> Result<ArrayRef, ArrowError> {
        let missing =
            || ArrowError::InvalidArgumentError("no row numbers for chunks named by digest".to_owned());
        let (rows, rest) = self.chunk_rows.split_at_checked(bodies).ok_or_else(missing)?;
        self.chunk_rows = rest;
        let mut items = Vec::with_capacity(rows.iter().map(|row| row.len()).sum());
        rows.iter().for_each(|row| items.extend_from_slice(row));
        let items = Arc::new(PrimitiveArray::<UInt32Type>::new(items.into(), None));
        self.list(&<u32 as ColumnValue>::TYPE, rows.iter().map(|row| row.len()), items)
    }
}

/// Measures the values before it copies them: an array that grows copies its content again and again.
fn sized<'a, T: ByteArrayType<Offset = i32>>(
    values: impl Iterator<Item = Option<&'a T::Native>> + Clone,
) -> ArrayRef
where
    T::Native: 'a,
{
    let length = |value: &T::Native| AsRef::<[u8]>::as_ref(value).len();
    let (mut rows, mut bytes) = (0, 0);
    for value in values.clone() {
        rows += 1;
        bytes += value.map_or(0, length);
    }
    let mut array = GenericByteBuilder::<T>::with_capacity(rows, bytes);
    values.for_each(|value| array.append_option(value));
    Arc::new(array.finish())
}
