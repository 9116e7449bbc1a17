//! The declaration of a table's row type: one macro defines the struct, its columns and the walk over its values.
//!
//! [`columns!`](crate::columns!) turns a struct declaration into a serde struct and an implementation of [`Columns`]. The
//! store makes Arrow fields from [`Columns::COLUMNS`] and arrays from [`Columns::build`]; the reference of tables in the
//! book prints name, type and documentation from the same place. Adding a field to a declaration adds the column
//! everywhere. This module knows the logical types only; `store` knows Arrow and Parquet.

use std::collections::BTreeMap;

/// The type of a column's values, independent of Arrow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogicalType {
    /// UTF-8 text.
    Text,
    /// Bytes of any length.
    Binary,
    /// Exactly so many bytes.
    FixedBinary(usize),
    /// True or false.
    Boolean,
    /// 16 bits, unsigned.
    UInt16,
    /// 32 bits, unsigned.
    UInt32,
    /// 64 bits, unsigned.
    UInt64,
    /// 32 bits, floating point.
    Float32,
    /// 64 bits, floating point.
    Float64,
    /// UTC, microseconds since 1970.
    Timestamp,
    /// A list without nulls.
    List(&'static Self),
    /// Named columns of their own.
    Struct(&'static [Column]),
    /// Text keys with text values.
    TextMap,
}

/// The encryption and lookup class of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnClass {
    /// Encrypted under the tenant's metadata key.
    Metadata,
    /// Encrypted under the tenant's payload key: content written by people and programs.
    Payload,
    /// Never encrypted, with a bloom filter: identifiers and keyed digests that a point lookup searches.
    Lookup,
}

/// A column as its row type declares it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    /// Name on disk.
    pub name: &'static str,
    /// Type of its values.
    pub logical_type: LogicalType,
    /// Whether a value may be absent.
    pub nullable: bool,
    /// Encryption and lookup class; columns inside a payload column are payload too.
    pub class: ColumnClass,
    doc: &'static str,
}

impl Column {
    /// Declares a column; `doc` is the field's documentation.
    #[must_use]
    pub const fn new<T: ColumnValue>(name: &'static str, class: ColumnClass, doc: &'static str) -> Self {
        Self { name, logical_type: T::TYPE, nullable: T::NULLABLE, class, doc }
    }

    /// The documentation of the field that declares the column.
    #[must_use]
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }
}

/// A type whose values can be stored in a column.
pub trait ColumnValue: Sized {
    /// The column's type.
    const TYPE: LogicalType;

    /// Whether a value may be absent.
    const NULLABLE: bool = false;

    /// Builds an array of these values; `None` becomes null.
    ///
    /// # Errors
    /// A value does not fit the array.
    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error>;
}

/// A struct whose fields are columns.
pub trait Columns: Sized {
    /// The columns in the order of the fields.
    const COLUMNS: &'static [Column];

    /// Builds one array for each column, in the order of [`Self::COLUMNS`].
    ///
    /// # Errors
    /// A value does not fit its array.
    fn build<B: ColumnBuilder>(builder: &mut B, rows: &[Option<&Self>]) -> Result<Vec<B::Array>, B::Error>;
}

/// The name of a chunk in a body: the row number in the chunks file of the same name, or a digest outside a store.
pub trait ChunkReference: Sized {
    /// Builds the references of these bodies, as lists of row numbers.
    ///
    /// # Errors
    /// The builder has no row numbers for digests.
    fn build<B: ColumnBuilder>(builder: &mut B, bodies: &[Option<&Vec<Self>>]) -> Result<B::Array, B::Error>;
}

impl ChunkReference for u32 {
    fn build<B: ColumnBuilder>(builder: &mut B, bodies: &[Option<&Vec<Self>>]) -> Result<B::Array, B::Error> {
        <Vec<Self> as ColumnValue>::build(builder, bodies)
    }
}

/// Builds the arrays of columns; `store` implements it with Arrow.
pub trait ColumnBuilder {
    /// A built column.
    type Array;
    /// The error of a value that does not fit.
    type Error;

    /// Builds a text column.
    fn text<'a>(&mut self, values: impl Iterator<Item = Option<&'a str>> + Clone) -> Self::Array;

    /// Builds a binary column.
    fn binary<'a>(&mut self, values: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Self::Array;

    /// Builds a column of exactly `N` bytes a value.
    ///
    /// # Errors
    /// `N` is out of range.
    fn fixed_binary<'a, const N: usize>(
        &mut self,
        values: impl Iterator<Item = Option<&'a [u8; N]>>,
    ) -> Result<Self::Array, Self::Error>;

    /// Builds a boolean column.
    fn boolean(&mut self, values: impl Iterator<Item = Option<bool>>) -> Self::Array;

    /// Builds a column of unsigned 16-bit numbers.
    fn uint16(&mut self, values: impl Iterator<Item = Option<u16>>) -> Self::Array;

    /// Builds a column of unsigned 32-bit numbers.
    fn uint32(&mut self, values: impl Iterator<Item = Option<u32>>) -> Self::Array;

    /// Builds a column of unsigned 64-bit numbers.
    fn uint64(&mut self, values: impl Iterator<Item = Option<u64>>) -> Self::Array;

    /// Builds a column of 32-bit floats.
    fn float32(&mut self, values: impl Iterator<Item = Option<f32>>) -> Self::Array;

    /// Builds a column of 64-bit floats.
    fn float64(&mut self, values: impl Iterator<Item = Option<f64>>) -> Self::Array;

    /// Builds a column of times: UTC, microseconds since 1970.
    fn timestamp(&mut self, values: impl Iterator<Item = Option<i64>>) -> Self::Array;

    /// Builds a list column from the length of each list and the items of all lists.
    ///
    /// # Errors
    /// The lengths do not add up to the items.
    fn list(
        &mut self,
        item: &'static LogicalType,
        lengths: impl Iterator<Item = usize>,
        items: Self::Array,
    ) -> Result<Self::Array, Self::Error>;

    /// Builds a struct column; `valid` is false for a null.
    ///
    /// # Errors
    /// The arrays do not fit the columns.
    fn structure(
        &mut self,
        columns: &'static [Column],
        arrays: Vec<Self::Array>,
        valid: impl ExactSizeIterator<Item = bool>,
    ) -> Result<Self::Array, Self::Error>;

    /// Builds a map column from the number of entries of each map and the keys and values of all maps.
    ///
    /// # Errors
    /// The lengths do not add up to the entries.
    fn text_map(
        &mut self,
        lengths: impl Iterator<Item = usize>,
        keys: Self::Array,
        values: Self::Array,
    ) -> Result<Self::Array, Self::Error>;

    /// Builds the chunk references of `bodies` bodies that name their chunks by digest. The builder supplies the row numbers,
    /// which only the writer of the chunks file knows.
    ///
    /// # Errors
    /// The builder has no row numbers.
    fn chunk_rows(&mut self, bodies: usize) -> Result<Self::Array, Self::Error>;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const TYPE: LogicalType = T::TYPE;
    const NULLABLE: bool = true;

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        let inner: Vec<Option<&T>> = values.iter().map(|value| value.and_then(Self::as_ref)).collect();
        T::build(builder, &inner)
    }
}

impl<T: ColumnValue> ColumnValue for Vec<T> {
    const TYPE: LogicalType = LogicalType::List(&T::TYPE);

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        let items: Vec<Option<&T>> = values.iter().copied().flatten().flatten().map(Some).collect();
        let items = T::build(builder, &items)?;
        builder.list(&T::TYPE, values.iter().map(|list| list.map_or(0, Self::len)), items)
    }
}

impl ColumnValue for Vec<u8> {
    const TYPE: LogicalType = LogicalType::Binary;

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        Ok(builder.binary(values.iter().map(|value| value.map(Self::as_slice))))
    }
}

impl ColumnValue for bytes::Bytes {
    const TYPE: LogicalType = LogicalType::Binary;

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        Ok(builder.binary(values.iter().map(|value| value.map(AsRef::as_ref))))
    }
}

impl ColumnValue for BTreeMap<String, String> {
    const TYPE: LogicalType = LogicalType::TextMap;

    fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
        let entries = || values.iter().copied().flatten().flatten();
        let keys = builder.text(entries().map(|(key, _)| Some(key.as_str())));
        let texts = builder.text(entries().map(|(_, value)| Some(value.as_str())));
        builder.text_map(values.iter().map(|map| map.map_or(0, Self::len)), keys, texts)
    }
}

/// Types whose values are stored as text, with the expression that gives the text.
macro_rules! text_values {
    ($($type:ty: $text:expr;)*) => {
        $(impl $crate::columns::ColumnValue for $type {
            const TYPE: $crate::columns::LogicalType = $crate::columns::LogicalType::Text;

            fn build<B: $crate::columns::ColumnBuilder>(
                builder: &mut B,
                values: &[Option<&Self>],
            ) -> Result<B::Array, B::Error> {
                Ok(builder.text(values.iter().map(|value| value.map($text))))
            }
        })*
    };
}

pub(crate) use text_values;

text_values! {
    String: String::as_str;
}

/// Types of fixed size, with the logical type and the builder's method.
macro_rules! plain_values {
    ($($type:ty: $logical:ident, $method:ident;)*) => {
        $(impl ColumnValue for $type {
            const TYPE: LogicalType = LogicalType::$logical;

            fn build<B: ColumnBuilder>(builder: &mut B, values: &[Option<&Self>]) -> Result<B::Array, B::Error> {
                Ok(builder.$method(values.iter().map(|value| value.copied())))
            }
        })*
    };
}

// Every `i64` of a row is a time.
plain_values! {
    bool: Boolean, boolean;
    u16: UInt16, uint16;
    u32: UInt32, uint32;
    u64: UInt64, uint64;
    f32: Float32, float32;
    f64: Float64, float64;
    i64: Timestamp, timestamp;
}

/// Declares a struct of columns: a serde struct, [`Columns`], and [`ColumnValue`] so that it can be a column itself.
///
/// A field may carry one `#[column(…)]` between its documentation and its other attributes: `payload` for content written by
/// people and programs (encrypted under the payload key), `lookup` for what point lookups search (never encrypted, with a
/// bloom filter), `chunks` for a body, whose references `try_map` converts.
#[macro_export]
macro_rules! columns {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$reference:ident = $default:ty>)? {
            $(
                $(#[doc = $doc:literal])+
                $(#[column($class:ident)])?
                $(#[serde($($serde:tt)*)])?
                pub $field:ident: $type:ty
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct $name $(<$reference = $default>)? {
            $(
                $(#[doc = $doc])+
                $(#[serde($($serde)*)])?
                pub $field: $type,
            )*
        }

        impl $(<$reference: $crate::columns::ChunkReference>)? $crate::columns::Columns for $name $(<$reference>)? {
            const COLUMNS: &'static [$crate::columns::Column] = &[
                $($crate::columns::Column::new::<$type>(
                    stringify!($field),
                    $crate::columns!(@class $($class)?),
                    concat!($($doc, "\n"),+),
                ),)*
            ];

            fn build<B: $crate::columns::ColumnBuilder>(
                builder: &mut B,
                rows: &[Option<&Self>],
            ) -> Result<Vec<B::Array>, B::Error> {
                Ok(vec![
                    $({
                        let values: Vec<Option<&$type>> = rows.iter().map(|row| row.map(|row| &row.$field)).collect();
                        <$type as $crate::columns::ColumnValue>::build(builder, &values)?
                    },)*
                ])
            }
        }

        impl $(<$reference: $crate::columns::ChunkReference>)? $crate::columns::ColumnValue for $name $(<$reference>)? {
            const TYPE: $crate::columns::LogicalType =
                $crate::columns::LogicalType::Struct(<Self as $crate::columns::Columns>::COLUMNS);

            fn build<B: $crate::columns::ColumnBuilder>(
                builder: &mut B,
                values: &[Option<&Self>],
            ) -> Result<B::Array, B::Error> {
                let arrays = <Self as $crate::columns::Columns>::build(builder, values)?;
                builder.structure(
                    <Self as $crate::columns::Columns>::COLUMNS,
                    arrays,
                    values.iter().map(Option::is_some),
                )
            }
        }

        $crate::columns!(@try_map $name $(<$reference>)? { $($field $(($class))?,)* });
    };
    (@try_map $name:ident { $($fields:tt)* }) => {};
    (@try_map $name:ident <$reference:ident> { $($field:ident $(($class:ident))?,)* }) => {
        impl<$reference> $name<$reference> {
            /// Converts the chunk references of all bodies.
            ///
            /// # Errors
            /// The first error of `convert`.
            pub fn try_map<S, E>(self, mut convert: impl FnMut($reference) -> Result<S, E>) -> Result<$name<S>, E> {
                Ok($name { $($field: $crate::columns!(@map self.$field, convert $(, $class)?),)* })
            }
        }
    };
    (@class) => { $crate::columns::ColumnClass::Metadata };
    (@class chunks) => { $crate::columns::ColumnClass::Metadata };
    (@class payload) => { $crate::columns::ColumnClass::Payload };
    (@class lookup) => { $crate::columns::ColumnClass::Lookup };
    (@map $value:expr, $convert:ident, chunks) => { $value.try_map(&mut $convert)? };
    (@map $value:expr, $convert:ident $(, $class:ident)?) => { $value };
}
