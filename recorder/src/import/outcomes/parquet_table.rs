//! Outcome tables in Parquet: the columns of CSV, and `embedding`.
//!
//! A cell is converted to its text in CSV, so that the same rules apply. Unused columns are not decoded. Types follow the
//! Parquet schema; Arrow types in its metadata (dictionaries, large lists) are ignored.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::columns::{OutcomeColumns, OutcomeTableError, normalised_name};
use super::row::RowReader;
use crate::import::file::ImportFile;
use crate::import::parsed_file::ParsedFile;

/// Name of the column with the embedding of the answer.
const EMBEDDING: &str = "embedding";

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;

/// Reads every row of the table.
///
/// # Errors
/// The file is no readable Parquet, lacks a column, or has one of an unsupported type.
pub(super) fn read(file: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    let unreadable = |error: &dyn std::fmt::Display| OutcomeTableError::Parquet {
        file: file.name().to_owned(),
        detail: error.to_string(),
    };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let bytes = Bytes::copy_from_slice(file.bytes());
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
        .map_err(|error| unreadable(&error))?;
    let schema = builder.schema().clone();
    let names: Vec<String> = schema.fields().iter().map(|field| normalised_name(field.name())).collect();
    let embedding = names.iter().position(|name| name == EMBEDDING);
    let mut rows = RowReader::new(file, columns, names, false)?;
    rows.parsed.ignored_columns.retain(|name| name != EMBEDDING);
    let used = rows.map.used();
    for index in &used {
        let field = schema.field(*index);
        if !is_readable(field.data_type()) {
            return Err(wrong_type(file, field.name(), field.data_type(), "text, a number or a boolean"));
        }
    }
    if let Some(index) = embedding
        && !is_embedding(schema.field(index).data_type())
    {
        let found = schema.field(index).data_type();
        return Err(wrong_type(file, EMBEDDING, found, "a list of 32 or 64 bit floating point numbers"));
    }
    let wanted = used.iter().copied().chain(embedding);
    let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
    let mut position = ReadPosition { line: 1, length: None };
    for batch in reader.map_err(|error| unreadable(&error))? {
        match batch {
            Ok(batch) => read_batch(&mut rows, &batch, &used, embedding.is_some(), &mut position)?,
            Err(error) => {
                let detail = format!("the rows from here on cannot be read ({error}); copy the file again");
                rows.parsed.skipped.push(file.skipped_item(position.line, "", detail));
                rows.parsed.more_lost_rows = total.saturating_sub(position.line);
                break;
            }
        }
    }
    Ok(rows.parsed)
}

fn wrong_type(
    file: &ImportFile,
    column: &str,
    found: &DataType,
    expected: &'static str,
) -> OutcomeTableError {
    let (file, column) = (file.name().to_owned(), column.to_owned());
    OutcomeTableError::Type { file, column, expected, found: found.to_string() }
}

/// Position in the table.
struct ReadPosition {
    /// Number of the next row, from 1.
    line: u64,
    /// Length of the first embedding, which all others must have.
    length: Option<usize>,
}

fn read_batch(
    rows: &mut RowReader<'_>,
    batch: &RecordBatch,
    used: &BTreeSet<usize>,
    embedded: bool,
    position: &mut ReadPosition,
) -> Result<(), OutcomeTableError> {
    let column = |name: &str| {
        let fields = batch.schema_ref().fields();
        let index = fields.iter().position(|field| normalised_name(field.name()) == name)?;
        Some(batch.column(index))
    };
    let decoded: Vec<Option<&ArrayRef>> = (0..rows.map.names.len())
        .map(|index| used.contains(&index).then(|| column(&rows.map.names[index])).flatten())
        .collect();
    let vectors = if embedded { column(EMBEDDING) } else { None };
    let mut record = csv::StringRecord::new();
    for row in 0..batch.num_rows() {
        record.clear();
        for array in &decoded {
            record.push_field(&array.map_or_else(String::new, |array| cell_text(array, row)));
        }
        match vectors.map_or(Ok(None), |lists| embedding_of(lists, row, position.length)) {
            Ok(embedding) => {
                position.length = position.length.or(embedding.as_ref().map(Vec::len));
                rows.read(position.line, &record, embedding)?;
            }
            Err(found) => {
                rows.read(position.line, &record, None)?;
                let detail = format!("expected a list of finite numbers, not all 0, found {found}");
                rows.add_unreadable_cell(rows.file.skipped_item(position.line, EMBEDDING, detail));
            }
        }
        position.line += 1;
    }
    Ok(())
}

fn is_readable(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::Boolean | DataType::Null)
        || matches!(data_type, DataType::Float32 | DataType::Float64)
}

fn is_embedding(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => matches!(item.data_type(), DataType::Float32 | DataType::Float64),
        _ => false,
    }
}

/// The text of the cell in CSV: empty for a null, and for NaN, which some libraries write instead.
fn cell_text(array: &ArrayRef, row: usize) -> String {
    macro_rules! number {
        ($type:ty) => {
            array.as_primitive::<$type>().value(row).to_string()
        };
    }
    if array.is_null(row) {
        return String::new();
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => String::from_utf8_lossy(array.as_binary::<i32>().value(row)).into_owned(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 if array.as_primitive::<Float32Type>().value(row).is_nan() => String::new(),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 if array.as_primitive::<Float64Type>().value(row).is_nan() => String::new(),
        DataType::Float64 => number!(Float64Type),
        // `is_readable` rejects every other type.
        _ => String::new(),
    }
}

/// The embedding of a row, of `length` numbers.
///
/// # Errors
/// A description of the value that is no embedding.
fn embedding_of(lists: &ArrayRef, row: usize, length: Option<usize>) -> Result<Option<Vec<f32>>, String> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let list = lists.as_list::<i32>().value(row);
    if list.null_count() > 0 {
        return Err("a list with a null".to_owned());
    }
    let numbers: Vec<f32> = match list.data_type() {
        DataType::Float32 => list.as_primitive::<Float32Type>().values().to_vec(),
        _ => list.as_primitive::<Float64Type>().values().iter().map(|value| to_f32(*value)).collect(),
    };
    if let Some(index) = numbers.iter().position(|number| !number.is_finite()) {
        return Err(format!("{} at index {index}", numbers[index]));
    }
    if numbers.iter().all(|number| *number == 0.0) {
        return Err(format!("{} zeros", numbers.len()));
    }
    match length {
        Some(length) if length != numbers.len() => {
            Err(format!("{} numbers, not {length} as in the rows before", numbers.len()))
        }
        Some(_) | None => Ok(Some(numbers)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest f32; a larger value becomes infinite"
)]
fn to_f32(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{Float32Builder, ListBuilder};
    use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn file(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .expect("columns of one length");
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a schema");
        writer.write(&batch).expect("writes");
        writer.into_inner().expect("closes")
    }

    fn parse(columns: Vec<(&str, ArrayRef)>) -> Result<ParsedFile, OutcomeTableError> {
        let file = ImportFile::outcome_table("t.parquet", file(columns)).expect("Parquet is taken");
        read(&file, &OutcomeColumns::default())
    }

    fn required() -> Vec<(&'static str, ArrayRef)> {
        vec![
            ("case", Arc::new(StringArray::from(vec!["a", "b", "c", "a"])) as ArrayRef),
            ("trial", Arc::new(Int64Array::from(vec![0, 1, -1, 0]))),
            ("success", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]))),
        ]
    }

    #[test]
    fn cells_equal_their_csv_text() {
        let mut lists = ListBuilder::new(Float32Builder::new());
        lists.append_value([Some(0.5), Some(-1.0)]);
        lists.append_null();
        lists.append_value([Some(1.0), Some(f32::NAN)]);
        lists.append_value([Some(0.0), Some(0.0)]);
        let mut columns = required();
        columns[1].1 = Arc::new(Int64Array::from(vec![0, 1, 2, 3]));
        columns.push((
            "seconds",
            Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None, Some(2.0)])),
        ));
        columns.push(("mood", Arc::new(StringArray::from(vec!["x", "y", "z", "w"]))));
        columns.push(("slice.tier", Arc::new(StringArray::from(vec![Some("gold"), None, None, None]))));
        columns.push(("embedding", Arc::new(lists.finish())));
        let parsed = parse(columns).expect("all there");
        assert_eq!(parsed.ignored_columns, ["mood"]);
        let [a, b, c, d] = &parsed.transcripts[..] else { panic!("four rows") };
        assert_eq!(
            (a.success, a.reported.duration_us, a.is_in("tier", "gold")),
            (Some(true), Some(1_500_000), true)
        );
        assert_eq!(a.reported.embedding.as_deref(), Some([0.5, -1.0].as_slice()));
        assert_eq!((b.success, b.reported.duration_us, b.reported.embedding.as_ref()), (None, None, None));
        let cells = c.unreadable_cells.iter().chain(&d.unreadable_cells);
        let cells: Vec<String> = cells.map(ToString::to_string).collect();
        assert_eq!((c.success, parsed.skipped.len()), (Some(false), 0));
        assert_eq!(
            cells,
            [
                "t.parquet:3: embedding: expected a list of finite numbers, not all 0, found NaN at index 1",
                "t.parquet:4: embedding: expected a list of finite numbers, not all 0, found 2 zeros"
            ]
        );
    }

    #[test]
    fn skipped_rows_have_their_number() {
        let parsed = parse(required()).expect("all there");
        let positions: Vec<_> = parsed.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
        assert_eq!((positions, parsed.transcripts.len()), (vec![(3, "trial")], 3));
    }

    #[test]
    fn unsupported_types_and_damaged_files_are_errors() {
        let mut columns = required();
        columns.push(("embedding", Arc::new(StringArray::from(vec!["1", "2", "3", "4"]))));
        let error = parse(columns).expect_err("not a list");
        assert!(matches!(&error, OutcomeTableError::Type { column, .. } if column == "embedding"), "{error}");
        let mut bytes = file(required());
        bytes.truncate(bytes.len() - 9);
        let file = ImportFile::outcome_table("t.parquet", bytes).expect("looks like Parquet");
        let error = read(&file, &OutcomeColumns::default()).expect_err("has no footer");
        assert!(matches!(&error, OutcomeTableError::Parquet { .. }), "{error}");
        let error = parse(required()[..2].to_vec()).expect_err("no success");
        assert!(error.to_string().contains("found case,trial;"), "{error}");
    }
}
