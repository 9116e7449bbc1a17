//! What of a file is encrypted under which key, and how the data keys of a file travel with it.
//!
//! Parquet modular encryption (AES-GCM) with a plaintext, signed footer: the schema, the format version and the columns
//! that look-ups go by stay readable; all other columns, with their statistics and page indexes, are encrypted. Wrapping
//! and unwrapping data keys is the key ring's, in `store`: no key of a tenant is ever seen here.

use std::sync::Arc;

use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescriptor;
use serde::{Deserialize, Serialize};

use super::{Table, TableError};

/// The form of key metadata that the key tools of Parquet's libraries know.
const KEY_MATERIAL_TYPE: &str = "PKMT1";

/// How a data key of a file is stored in that file, wrapped: the JSON that Parquet's key tools write and read, so that
/// pyarrow, Spark and others open the files with a KMS client that knows the tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyMaterial {
    /// `PKMT1`.
    pub key_material_type: String,
    /// Always `true`: the material lies in the file itself.
    pub internal_storage: bool,
    /// Whether it is the key that signs the footer.
    pub is_footer_key: bool,
    /// Of the footer key: the KMS instance, which these files leave to the reader's configuration.
    #[serde(rename = "kmsInstanceID", skip_serializing_if = "Option::is_none", default)]
    pub kms_instance: Option<String>,
    /// Of the footer key: where that instance is, likewise.
    #[serde(rename = "kmsInstanceURL", skip_serializing_if = "Option::is_none", default)]
    pub kms_url: Option<String>,
    /// The tenant's key that wraps it, `<tenant>/metadata` or `<tenant>/payload`.
    #[serde(rename = "masterKeyID")]
    pub key: String,
    /// Always `false`: the data key is wrapped by the tenant's key itself.
    pub double_wrapping: bool,
    /// Base64 of nonce (12 bytes) and AES-256-GCM of the data key, with [`Self::key`] as additional data.
    #[serde(rename = "wrappedDEK")]
    pub wrapped: String,
}

impl KeyMaterial {
    /// Describes a wrapped data key.
    #[must_use]
    pub fn new(key: String, wrapped: String, is_footer_key: bool) -> Self {
        let kms = || is_footer_key.then(|| "DEFAULT".to_owned());
        Self {
            key_material_type: KEY_MATERIAL_TYPE.to_owned(),
            internal_storage: true,
            is_footer_key,
            kms_instance: kms(),
            kms_url: kms(),
            key,
            double_wrapping: false,
            wrapped,
        }
    }

    /// Reads key metadata of a file.
    ///
    /// # Errors
    /// [`KeyError::Foreign`] where it is of another form.
    pub fn parse(metadata: &[u8]) -> Result<Self, KeyError> {
        let material: Self = serde_json::from_slice(metadata)
            .map_err(|error| KeyError::Foreign { detail: error.to_string() })?;
        if material.key_material_type == KEY_MATERIAL_TYPE
            && material.internal_storage
            && !material.double_wrapping
        {
            Ok(material)
        } else {
            let detail = "expected PKMT1 with internal storage and single wrapping".to_owned();
            Err(KeyError::Foreign { detail })
        }
    }

    /// The bytes that go into the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and flags is always JSON")
    }
}

/// A key without which something cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nobody configured it.
    #[error(
        "encrypted under key {key:?}, which is not configured; add an [[encryption.key]] with tenant = {tenant:?} to the configuration and name that with --config"
    )]
    Missing {
        /// The key's name.
        key: String,
        /// Whose key it is.
        tenant: String,
    },
    /// The one configured is another.
    #[error(
        "encrypted under key {key:?}, and the key configured under this name does not open it; configure the key file that it was written with"
    )]
    Wrong {
        /// The key's name.
        key: String,
    },
    /// Encrypted by somebody else's tools.
    #[error("key metadata is not foreshadow's ({detail}); read the file with the tool that wrote it")]
    Foreign {
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system has no randomness.
    #[error("the operating system gave no random bytes for a data key; try again")]
    Randomness,
}

impl KeyError {
    /// Says that the key of this name is not configured.
    #[must_use]
    pub fn missing(key: &str) -> Self {
        let tenant = key.rsplit_once('/').map_or(key, |(tenant, _)| tenant);
        Self::Missing { key: key.to_owned(), tenant: tenant.to_owned() }
    }
}

impl From<KeyError> for ParquetError {
    fn from(error: KeyError) -> Self {
        Self::External(Box::new(error))
    }
}

/// A data key and the metadata by which a reader gets it back.
#[derive(Clone)]
pub struct DataKey {
    /// 16 or 32 random bytes, never used for another file.
    pub key: Vec<u8>,
    /// Its [`KeyMaterial`].
    pub metadata: Vec<u8>,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(hidden)")
    }
}

/// The data keys of one file.
#[derive(Debug, Clone)]
pub struct FileKeys {
    /// Signs the footer.
    pub footer: DataKey,
    /// Encrypts columns that are not payload.
    pub metadata: DataKey,
    /// Encrypts payload columns.
    pub payload: DataKey,
}

/// Under which key a column lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKeyClass {
    /// Not encrypted: ids and keyed digests that look-ups go by.
    Open,
    /// Encrypted under the metadata key.
    Metadata,
    /// Encrypted under the payload key: what people and programs said.
    Payload,
}

/// Columns of payload, whole or by their leaves: bodies and the texts decoded from them, and what people may have written.
fn payload_columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::Exchanges => &[
            "ending_detail",
            "path",
            "request_headers",
            "response_headers",
            "request.template",
            "response.template",
            "operation.input",
            "operation.output",
            "operation.requested.list.element.arguments",
            "operation.arguments",
            "operation.arguments_verbatim",
            "operation.result",
            "identifiers.list.element.value",
        ],
        Table::Chunks => &["bytes"],
        Table::Sessions => &["labels"],
        Table::Trials => {
            &["ending_detail", "answer", "divergences.list.element.detail", "fault_plan", "slices"]
        }
        Table::Scores => &["reason", "slice", "error"],
        // A vector gives away what its text is about, and often the text.
        Table::Embeddings => &["vector"],
    }
}

/// Under which key the column with this path of leaf lies (`operation.input`, `labels.key_value.value`).
#[must_use]
pub fn column_key_class(table: Table, leaf: &str) -> ColumnKeyClass {
    let within = |column: &&str| {
        leaf.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if table.lookup_columns().contains(&leaf) {
        ColumnKeyClass::Open
    } else if payload_columns(table).iter().any(within) {
        ColumnKeyClass::Payload
    } else {
        ColumnKeyClass::Metadata
    }
}

/// How a file of the table is encrypted under its data keys.
pub(super) fn properties(
    table: Table,
    schema: &SchemaDescriptor,
    keys: &FileKeys,
) -> Result<Arc<FileEncryptionProperties>, TableError> {
    let mut builder = FileEncryptionProperties::builder(keys.footer.key.clone())
        .with_footer_key_metadata(keys.footer.metadata.clone())
        .with_plaintext_footer(true);
    for column in schema.columns() {
        let leaf = column.path().string();
        let key = match column_key_class(table, &leaf) {
            ColumnKeyClass::Open => continue,
            ColumnKeyClass::Metadata => &keys.metadata,
            ColumnKeyClass::Payload => &keys.payload,
        };
        builder = builder.with_column_key_and_metadata(&leaf, key.key.clone(), key.metadata.clone());
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowSchemaConverter;

    use super::*;

    fn leaves(table: Table) -> Vec<String> {
        let schema = arrow_schema::Schema::new(table.columns());
        let schema = ArrowSchemaConverter::new().convert(&schema).expect("columns are Parquet types");
        schema.columns().iter().map(|column| column.path().string()).collect()
    }

    #[test]
    fn every_named_column_exists() {
        for table in Table::ALL {
            let leaves = leaves(table);
            for named in payload_columns(table) {
                let below = format!("{named}.");
                let is_there = |leaf: &String| leaf == named || leaf.starts_with(&below);
                assert!(leaves.iter().any(is_there), "{table:?} has no {named}: {leaves:?}");
            }
            for named in table.lookup_columns() {
                assert!(leaves.iter().any(|leaf| leaf == named), "{table:?} has no {named}");
            }
        }
    }

    #[test]
    fn what_people_say_is_payload_and_only_ids_are_open() {
        let open: Vec<_> = Table::ALL
            .into_iter()
            .flat_map(|table| leaves(table).into_iter().map(move |leaf| (table, leaf)))
            .filter(|(table, leaf)| column_key_class(*table, leaf) == ColumnKeyClass::Open)
            .map(|(_, leaf)| leaf)
            .collect();
        assert_eq!(open, ["session", "digest", "session", "session", "session", "session"]);
        for leaf in ["request.template", "operation.result", "request_headers.list.element.value"] {
            assert_eq!(column_key_class(Table::Exchanges, leaf), ColumnKeyClass::Payload, "{leaf}");
        }
        assert_eq!(column_key_class(Table::Embeddings, "vector.list.element"), ColumnKeyClass::Payload);
        for leaf in ["pathology", "operation.tool", "request.chunks.list.element"] {
            assert_eq!(column_key_class(Table::Exchanges, leaf), ColumnKeyClass::Metadata, "{leaf}");
        }
    }
}
