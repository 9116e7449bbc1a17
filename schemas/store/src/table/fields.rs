//! Arrow fields of the declared columns.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};
use schemas::columns::{Column, LogicalType};

/// The Arrow fields of these columns, in their order.
pub(super) fn fields(columns: &[Column]) -> Vec<FieldRef> {
    columns
        .iter()
        .map(|column| field(column.name, data_type(&column.logical_type), column.nullable))
        .collect()
}

/// The field of a list's items.
pub(super) fn element(item: &LogicalType) -> FieldRef {
    field("element", data_type(item), false)
}

/// The field of a map's entries, and the fields inside it.
pub(super) fn map_entries() -> (FieldRef, Fields) {
    let entries =
        Fields::from(vec![field("key", DataType::Utf8, false), field("value", DataType::Utf8, true)]);
    (field("key_value", DataType::Struct(entries.clone()), false), entries)
}

fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, data_type, nullable))
}

fn data_type(logical_type: &LogicalType) -> DataType {
    match logical_type {
        LogicalType::Text => DataType::Utf8,
        LogicalType::Binary => DataType::Binary,
        LogicalType::FixedBinary(length) => {
            DataType::FixedSizeBinary(i32::try_from(*length).expect("a declared length is small"))
        }
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::UInt16 => DataType::UInt16,
        LogicalType::UInt32 => DataType::UInt32,
        LogicalType::UInt64 => DataType::UInt64,
        LogicalType::Float32 => DataType::Float32,
        LogicalType::Float64 => DataType::Float64,
        LogicalType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        LogicalType::List(item) => DataType::List(element(item)),
        LogicalType::Struct(columns) => DataType::Struct(Fields::from(fields(columns))),
        LogicalType::TextMap => DataType::Map(map_entries().0, false),
    }
}
