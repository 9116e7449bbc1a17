//! Outcome tables in Parquet: the same columns as in CSV, and `embedding`.
//!
//! A cell becomes the text that it would be in CSV, so that both forms are checked by the same rules. OutcomeColumns that are
//! not read are not decoded. Values are taken for what Parquet says they are; types that a writer's own library adds
//! (Arrow dictionaries, large lists) are not looked at.

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

use super::{OutcomeColumns, OutcomeTableError, RowReader};
use crate::import::file::ImportFile;
use crate::import::parsed_file::ParsedFile;

/// The column of the answer's embedding.
const EMBEDDING: &str = "embedding";

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;

/// Reads every row of the table.
///
/// # Errors
/// It is no readable Parquet file, lacks a column, or has one of a type that says nothing here.
pub(super) fn read(source: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    let broken = |error: &dyn std::fmt::Display| OutcomeTableError::Parquet {
        file: source.name().to_owned(),
        detail: error.to_string(),
    };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let bytes = Bytes::copy_from_slice(source.bytes());
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
        .map_err(|error| broken(&error))?;
    let schema = builder.schema().clone();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let embedding = names.iter().position(|name| name == EMBEDDING);
    let mut intake = RowReader::new(source, columns, names)?;
    intake.parsed.ignored_columns.retain(|name| name != EMBEDDING);
    let used = intake.places.used();
    for place in &used {
        let field = schema.field(*place);
        if !is_readable(field.data_type()) {
            return Err(wrong_type(
                source,
                field.name(),
                field.data_type(),
                "text, a number or a truth value",
            ));
        }
    }
    if let Some(place) = embedding
        && !is_embedding(schema.field(place).data_type())
    {
        let found = schema.field(place).data_type();
        return Err(wrong_type(source, EMBEDDING, found, "a list of 32 or 64 bit floating point numbers"));
    }
    let wanted = used.iter().copied().chain(embedding);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
    let mut progress = Progress { line: 1, length: None };
    for batch in reader.map_err(|error| broken(&error))? {
        match batch {
            Ok(batch) => take(&mut intake, &batch, &used, embedding.is_some(), &mut progress),
            Err(error) => {
                let detail = format!("the rows from here on cannot be read ({error}); copy the file again");
                intake.parsed.skipped.push(source.skipped_item(progress.line, "", detail));
                break;
            }
        }
    }
    Ok(intake.parsed)
}

fn wrong_type(
    source: &ImportFile,
    column: &str,
    found: &DataType,
    expected: &'static str,
) -> OutcomeTableError {
    let (file, column) = (source.name().to_owned(), column.to_owned());
    OutcomeTableError::Type { file, column, expected, found: found.to_string() }
}

/// How far a file has been read.
struct Progress {
    /// The next row, from 1.
    line: u64,
    /// How many numbers the first embedding has. Vectors of several lengths cannot be compared.
    length: Option<usize>,
}

fn take(
    intake: &mut RowReader<'_>,
    batch: &RecordBatch,
    used: &BTreeSet<usize>,
    embedded: bool,
    progress: &mut Progress,
) {
    let column = |name: &str| batch.column_by_name(name);
    let decoded: Vec<Option<&ArrayRef>> = (0..intake.places.names.len())
        .map(|place| used.contains(&place).then(|| column(&intake.places.names[place])).flatten())
        .collect();
    let vectors = if embedded { column(EMBEDDING) } else { None };
    let mut record = csv::StringRecord::new();
    for row in 0..batch.num_rows() {
        record.clear();
        for array in &decoded {
            record.push_field(&array.map_or_else(String::new, |array| cell(array, row)));
        }
        match vectors.map_or(Ok(None), |lists| vector(lists, row, progress.length)) {
            Ok(embedding) => {
                progress.length = progress.length.or(embedding.as_ref().map(Vec::len));
                intake.take(progress.line, &record, embedding);
            }
            Err(found) => {
                let detail = format!("expected a list of finite numbers, not all 0, found {found}");
                intake.parsed.skipped.push(intake.source.skipped_item(progress.line, EMBEDDING, detail));
            }
        }
        progress.line += 1;
    }
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

/// The cell as it would stand in CSV: empty where nothing is known. Not-a-number is how some libraries write that.
fn cell(array: &ArrayRef, row: usize) -> String {
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
        // Every other type was refused by `is_readable`.
        _ => String::new(),
    }
}

/// The embedding of a row, or what stands there instead; `length` is how many numbers it must have.
fn vector(lists: &ArrayRef, row: usize, length: Option<usize>) -> Result<Option<Vec<f32>>, String> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let list = lists.as_list::<i32>().value(row);
    if list.null_count() > 0 {
        return Err("a list with nothing at a place".to_owned());
    }
    let numbers: Vec<f32> = match list.data_type() {
        DataType::Float32 => list.as_primitive::<Float32Type>().values().to_vec(),
        _ => list.as_primitive::<Float64Type>().values().iter().map(|value| narrow(*value)).collect(),
    };
    if let Some(place) = numbers.iter().position(|number| !number.is_finite()) {
        return Err(format!("{} at place {place}", numbers[place]));
    }
    if numbers.iter().all(|number| *number == 0.0) {
        return Err(format!("{} zeros", numbers.len()));
    }
    match length {
        Some(length) if length != numbers.len() => {
            Err(format!("{} numbers where the rows before have {length}", numbers.len()))
        }
        Some(_) | None => Ok(Some(numbers)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest f32; what is too large is not finite"
)]
fn narrow(value: f64) -> f32 {
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
        let source = ImportFile::outcome_table("t.parquet", file(columns)).expect("Parquet is taken");
        super::super::read(&source, &OutcomeColumns::default())
    }

    fn needed() -> Vec<(&'static str, ArrayRef)> {
        vec![
            ("case", Arc::new(StringArray::from(vec!["a", "b", "c", "a"])) as ArrayRef),
            ("trial", Arc::new(Int64Array::from(vec![0, 1, -1, 0]))),
            ("success", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]))),
        ]
    }

    #[test]
    fn a_cell_is_what_it_would_be_in_csv() {
        let mut lists = ListBuilder::new(Float32Builder::new());
        lists.append_value([Some(0.5), Some(-1.0)]);
        lists.append_null();
        lists.append_value([Some(1.0), Some(f32::NAN)]);
        lists.append_value([Some(0.0), Some(0.0)]);
        let mut columns = needed();
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
        let [a, b] = &parsed.transcripts[..] else { panic!("two rows") };
        assert_eq!(
            (a.success, a.reported.duration_us, a.is_in("tier", "gold")),
            (Some(true), Some(1_500_000), true)
        );
        assert_eq!(a.reported.embedding.as_deref(), Some([0.5, -1.0].as_slice()));
        assert_eq!((b.success, b.reported.duration_us, b.reported.embedding.as_ref()), (None, None, None));
        let asides: Vec<String> = parsed.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            asides,
            [
                "t.parquet:3: embedding: expected a list of finite numbers, not all 0, found NaN at place 1",
                "t.parquet:4: embedding: expected a list of finite numbers, not all 0, found 2 zeros"
            ]
        );
    }

    #[test]
    fn bad_rows_are_set_aside_by_number() {
        let parsed = parse(needed()).expect("all there");
        let places: Vec<_> = parsed.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
        assert_eq!((places, parsed.transcripts.len()), (vec![(3, "trial"), (4, "trial")], 2));
    }

    #[test]
    fn columns_of_a_wrong_type_and_damaged_files_are_refused() {
        let mut columns = needed();
        columns.push(("embedding", Arc::new(StringArray::from(vec!["1", "2", "3", "4"]))));
        let error = parse(columns).expect_err("not a list");
        assert!(matches!(&error, OutcomeTableError::Type { column, .. } if column == "embedding"), "{error}");
        let mut bytes = file(needed());
        bytes.truncate(bytes.len() - 9);
        let source = ImportFile::outcome_table("t.parquet", bytes).expect("looks like Parquet");
        let error = super::super::read(&source, &OutcomeColumns::default()).expect_err("has no footer");
        assert!(matches!(&error, OutcomeTableError::Parquet { .. }), "{error}");
        let error = parse(needed()[..2].to_vec()).expect_err("no success");
        assert!(error.to_string().contains("found case,trial;"), "{error}");
    }
}
