//! Encryption of a file: the key of each column, and the wrapped data keys in the file's metadata.
//!
//! Parquet modular encryption (AES-GCM) with a plaintext, signed footer: the schema, the format version and the columns of point
//! lookups stay readable. All other columns, with their statistics and page indexes, are encrypted. The key ring wraps and
//! unwraps data keys; this module never sees the key of a tenant.

use std::sync::Arc;

use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescriptor;
use schemas::columns::ColumnClass;
use serde::{Deserialize, Serialize};

use super::definition::Table;

/// The type of key metadata that the key tools of Parquet's libraries read.
const KEY_MATERIAL_TYPE: &str = "PKMT1";

/// A wrapped data key in the metadata of its file: the JSON of Parquet's key tools, so that pyarrow, Spark and others open the
/// files with a KMS client that has the tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyMaterial {
    /// `PKMT1`.
    pub key_material_type: String,
    /// Always `true`: the file itself contains the material.
    pub internal_storage: bool,
    /// Whether the key signs the footer.
    pub is_footer_key: bool,
    /// Footer key only: the KMS instance. `DEFAULT` leaves it to the reader's configuration.
    #[serde(rename = "kmsInstanceID", skip_serializing_if = "Option::is_none", default)]
    pub kms_instance: Option<String>,
    /// Footer key only: the URL of the instance. `DEFAULT` leaves it to the reader's configuration.
    #[serde(rename = "kmsInstanceURL", skip_serializing_if = "Option::is_none", default)]
    pub kms_url: Option<String>,
    /// Name of the tenant's key that wraps the data key: `<tenant>/metadata` or `<tenant>/payload`.
    #[serde(rename = "masterKeyID")]
    pub key: String,
    /// Always `false`: the tenant's key wraps the data key directly.
    pub double_wrapping: bool,
    /// Base64 of nonce (12 bytes) and AES-256-GCM of the data key, with [`Self::key`] as additional data.
    #[serde(rename = "wrappedDEK")]
    pub wrapped: String,
}

impl KeyMaterial {
    /// Creates the material of a wrapped data key.
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
    /// [`KeyError::Foreign`] if another tool wrote the metadata.
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

    /// Encodes the material as key metadata of a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and flags is always JSON")
    }
}

/// A key that is missing, wrong or foreign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is not configured.
    #[error(
        "encrypted under key {key:?}, which is not configured; add an [[encryption.key]] with tenant = {tenant:?} to the configuration and name that with --config"
    )]
    Missing {
        /// Name of the key.
        key: String,
        /// The tenant of the key.
        tenant: String,
    },
    /// The configured key does not unwrap the data key.
    #[error(
        "encrypted under key {key:?}, and the key configured under this name does not open it; configure the key file that it was written with"
    )]
    Wrong {
        /// Name of the key.
        key: String,
    },
    /// Another tool encrypted the file.
    #[error("key metadata is not foreshadow's ({detail}); read the file with the tool that wrote it")]
    Foreign {
        /// The mismatch.
        detail: String,
    },
    /// The operating system returned no random bytes.
    #[error("the operating system gave no random bytes for a data key; try again")]
    Randomness,
}

impl KeyError {
    /// The error for a key that is not configured.
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

/// A data key, and the metadata from which a reader unwraps it.
#[derive(Clone)]
pub struct DataKey {
    /// 16 or 32 random bytes, never used for another file.
    pub key: Vec<u8>,
    /// Encoded [`KeyMaterial`].
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

/// The encryption properties of a file of the table.
pub(super) fn properties(
    table: Table,
    schema: &SchemaDescriptor,
    keys: &FileKeys,
) -> Result<Arc<FileEncryptionProperties>, ParquetError> {
    let mut builder = FileEncryptionProperties::builder(keys.footer.key.clone())
        .with_footer_key_metadata(keys.footer.metadata.clone())
        .with_plaintext_footer(true);
    for column in schema.columns() {
        let leaf = column.path().string();
        let key = match table.class_of(&leaf) {
            ColumnClass::Lookup => continue,
            ColumnClass::Metadata => &keys.metadata,
            ColumnClass::Payload => &keys.payload,
        };
        builder = builder.with_column_key_and_metadata(&leaf, key.key.clone(), key.metadata.clone());
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowSchemaConverter;

    use super::*;

    fn leaves(table: Table) -> Vec<String> {
        let schema = arrow_schema::Schema::new(table.fields());
        let schema = ArrowSchemaConverter::new().convert(&schema).expect("columns are Parquet types");
        schema.columns().iter().map(|column| column.path().string()).collect()
    }

    fn of_class(class: ColumnClass) -> Vec<String> {
        let leaves = |table: Table| leaves(table).into_iter().map(move |leaf| (table, leaf));
        let all = Table::ALL.into_iter().flat_map(leaves);
        let found = all.filter(|(table, leaf)| table.class_of(leaf) == class);
        found.map(|(table, leaf)| format!("{} {leaf}", table.as_str())).collect()
    }

    #[test]
    fn identifiers_and_digests_stay_readable_and_nothing_else() {
        let expected = [
            "exchanges session",
            "chunks digest",
            "sessions session",
            "trials session",
            "scores session",
            "embeddings session",
        ];
        assert_eq!(of_class(ColumnClass::Lookup), expected);
    }

    #[test]
    fn content_is_encrypted_under_the_payload_key() {
        let expected = [
            "exchanges ending_detail",
            "exchanges path",
            "exchanges request_headers.list.element.name",
            "exchanges request_headers.list.element.value",
            "exchanges response_headers.list.element.name",
            "exchanges response_headers.list.element.value",
            "exchanges request.template",
            "exchanges response.template",
            "exchanges operation.input",
            "exchanges operation.output",
            "exchanges operation.requested.list.element.arguments",
            "exchanges operation.arguments",
            "exchanges operation.arguments_verbatim",
            "exchanges operation.result",
            "exchanges identifiers.list.element.value",
            "chunks bytes",
            "sessions labels.key_value.key",
            "sessions labels.key_value.value",
            "trials ending_detail",
            "trials answer",
            "trials divergences.list.element.detail",
            "trials model_inputs.first_change",
            "trials model_inputs.changes.list.element",
            "trials fault_plan",
            "trials slices.key_value.key",
            "trials slices.key_value.value",
            "trials cluster",
            "scores reason",
            "scores slice",
            "scores error",
            "embeddings vector.list.element",
        ];
        assert_eq!(of_class(ColumnClass::Payload), expected);
    }
}
