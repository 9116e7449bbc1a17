//! The content of one import file, decompressed and split into items.
//!
//! Magic bytes decide whether a file is zstd, gzip or Parquet; its name never does. This module does not open files.

use std::io::Read as _;

use serde::de::DeserializeOwned;

use super::skipped::SkippedItem;

/// The longest decompressed content: 2 GiB. A small zstd file can decompress to any size.
pub const MAX_DECOMPRESSED_BYTES: u64 = 2 << 30;

/// First bytes of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// First bytes of a Parquet file.
const PARQUET_MAGIC: [u8; 4] = *b"PAR1";

/// First bytes of a gzip file (RFC 1952 section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// An import file of which nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportFileError {
    /// The file is empty or white space.
    #[error("{file} is empty; expected JSON, JSONL, CSV or, for outcomes, Parquet")]
    Empty {
        /// Path as given on the command line.
        file: String,
    },
    /// The zstd decoder failed before the first decompressed byte.
    #[error("{file} cannot be decompressed ({detail}); the file may be truncated: copy it again")]
    Decompress {
        /// Path as given on the command line.
        file: String,
        /// The decoder's error.
        detail: String,
    },
    /// The decompressed content exceeds [`MAX_DECOMPRESSED_BYTES`].
    #[error("{file} decompresses to more than {MAX_DECOMPRESSED_BYTES} bytes; split it into several files")]
    TooLarge {
        /// Path as given on the command line.
        file: String,
    },
    /// The file's magic bytes name a kind that import does not read.
    #[error("{file} is a {kind} file; expected JSON, JSONL or CSV, plain or zstd: {remedy}")]
    UnsupportedKind {
        /// Path as given on the command line.
        file: String,
        /// `Parquet` or `gzip`.
        kind: &'static str,
        /// Instruction for the user.
        remedy: &'static str,
    },
}

/// The decompressed content of a file, and the file's name.
#[derive(Debug)]
pub struct ImportFile {
    name: String,
    stem: String,
    bytes: Vec<u8>,
    /// Error of the decoder after the last good byte.
    truncation: Option<String>,
}

/// An item of a file: its line or element number from 1, and its JSON text.
pub(super) type FileItem<'a> = (u64, &'a [u8]);

impl ImportFile {
    /// Decompresses the bytes of a file; error texts call the file `name`.
    ///
    /// # Errors
    /// The file is empty, too large, broken from its first byte, gzip or Parquet.
    pub fn decompress(name: &str, raw: Vec<u8>) -> Result<Self, ImportFileError> {
        let unsupported =
            |kind, remedy| Err(ImportFileError::UnsupportedKind { file: name.to_owned(), kind, remedy });
        if raw.starts_with(&PARQUET_MAGIC) {
            return unsupported("Parquet", "only an outcome table may be Parquet (--format outcomes)");
        }
        if raw.starts_with(&GZIP_MAGIC) {
            return unsupported("gzip", "decompress it first");
        }
        let (bytes, truncation) =
            if raw.starts_with(&ZSTD_MAGIC) { decompress_zstd(name, &raw)? } else { (raw, None) };
        let bytes = utf16_to_utf8(&bytes).unwrap_or(bytes);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ImportFileError::Empty { file: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), stem: stem(name), bytes, truncation })
    }

    /// Accepts an outcome table, which may be Parquet; other content is decompressed.
    ///
    /// # Errors
    /// As [`Self::decompress`], except for Parquet.
    pub fn outcome_table(name: &str, raw: Vec<u8>) -> Result<Self, ImportFileError> {
        if raw.starts_with(&PARQUET_MAGIC) {
            return Ok(Self { name: name.to_owned(), stem: stem(name), bytes: raw, truncation: None });
        }
        Self::decompress(name, raw)
    }

    /// Whether the content is a Parquet file.
    pub(super) fn is_parquet(&self) -> bool {
        self.bytes.starts_with(&PARQUET_MAGIC)
    }

    /// Path as given on the command line.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's name without directory, `.zst`, and the extension of its format.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The decompressed bytes, without a byte order mark.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.bytes)
    }

    /// First 16 hex digits of the BLAKE3 hash of the decompressed bytes: compressing a file does not change them.
    #[must_use]
    pub fn digest(&self) -> String {
        blake3::hash(&self.bytes).to_hex().as_str()[..16].to_owned()
    }

    /// The truncated end of a compressed file, as an item that import skips; absent for a complete file.
    pub(super) fn truncated_end(&self) -> Option<SkippedItem> {
        let detail = self.truncation.as_ref()?;
        let line = 1 + self.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let detail = format!("the file is truncated here ({detail}); copy it again for the rest");
        Some(self.skipped_item(line, "", detail))
    }

    /// An item of this file that import skips.
    pub(super) fn skipped_item(&self, line: u64, field: &str, detail: String) -> SkippedItem {
        SkippedItem { file: self.name.clone(), line, field: field.to_owned(), detail }
    }

    /// The non-blank lines, or the elements of a file that is one JSON array.
    pub(super) fn items(&self) -> Vec<FileItem<'_>> {
        if self.bytes().trim_ascii_start().starts_with(b"[") {
            let array: Result<Vec<&serde_json::value::RawValue>, _> = serde_json::from_slice(self.bytes());
            if let Ok(array) = array {
                return (1..).zip(array.into_iter().map(|element| element.get().as_bytes())).collect();
            }
        }
        let lines = (1..).zip(self.bytes().split(|byte| *byte == b'\n'));
        lines.filter(|(_, line)| !line.trim_ascii().is_empty()).collect()
    }

    /// Deserializes an item, and again without its messages if they are what cannot be read.
    ///
    /// # Errors
    /// Line, field and column at which the text is not a `T`, with or without messages.
    pub(super) fn decode_or_without<T: DeserializeOwned>(
        &self,
        item: FileItem<'_>,
        messages: &str,
    ) -> Result<(T, Option<SkippedItem>), SkippedItem> {
        let error = match self.decode(item) {
            Ok(row) => return Ok((row, None)),
            Err(error) => error,
        };
        let without = serde_json::from_slice::<serde_json::Value>(item.1).ok().and_then(|mut value| {
            value.as_object_mut()?.remove(messages)?;
            serde_json::from_value(value).ok()
        });
        match without {
            Some(row) => Ok((row, Some(error))),
            None => Err(error),
        }
    }

    /// Deserializes an item.
    ///
    /// # Errors
    /// Line, field and column at which the text is not a `T`.
    pub(super) fn decode<T: DeserializeOwned>(&self, (line, text): FileItem<'_>) -> Result<T, SkippedItem> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let error_at = |field: &str, error: &serde_json::Error| {
            // serde counts lines within the item, so in a JSONL file its line is always 1.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            self.skipped_item(line, field, format!("{text} (column {})", error.column()))
        };
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // `?` stands for a field whose name is incomplete.
            error_at(path.trim_end_matches(['?', '.']), error.inner())
        })?;
        json.end().map_err(|error| error_at("", &error))?;
        Ok(value)
    }
}

/// Decompresses zstd. After an error, returns the bytes before it together with the error's text.
fn decompress_zstd(name: &str, raw: &[u8]) -> Result<(Vec<u8>, Option<String>), ImportFileError> {
    let failed = |error: std::io::Error| ImportFileError::Decompress {
        file: name.to_owned(),
        detail: error.to_string(),
    };
    let mut decoder = zstd::stream::read::Decoder::new(raw).map_err(failed)?;
    let mut bytes = Vec::new();
    // In blocks, because `read_to_end` would drop the bytes before an error.
    let mut buffer = vec![0; 1 << 16];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok((bytes, None)),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if bytes.is_empty() => return Err(failed(error)),
            Err(error) => return Ok((bytes, Some(error.to_string()))),
        }
        if bytes.len() as u64 > MAX_DECOMPRESSED_BYTES {
            return Err(ImportFileError::TooLarge { file: name.to_owned() });
        }
    }
}

/// Decodes UTF-16 with a byte order mark, in which spreadsheets save "Unicode text"; absent for other content.
fn utf16_to_utf8(bytes: &[u8]) -> Option<Vec<u8>> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let (units, _) = bytes[2..].as_chunks::<2>();
    let decoded = char::decode_utf16(units.iter().map(|pair| unit(*pair)));
    Some(decoded.map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes())
}

fn stem(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let name = name.strip_suffix(".zst").unwrap_or(name);
    let suffixes = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"];
    let name = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    name.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_bytes_decide_whether_a_file_is_zstd() {
        let compressed = zstd::encode_all(&b"{\"a\":1}\n{\"a\":2}\n"[..], 1).expect("compresses");
        let file = ImportFile::decompress("x/run.v2.jsonl", compressed).expect("decompresses");
        assert_eq!((file.stem(), file.items().len()), ("run.v2", 2));
        let plain =
            ImportFile::decompress("x.jsonl.zst", b"{\"a\":1}\n{\"a\":2}\n".to_vec()).expect("decompresses");
        assert_eq!(plain.digest(), file.digest());
    }

    #[test]
    fn items_before_a_truncation_are_read() {
        let text: String =
            (0..20_000).map(|n| format!("{{\"n\":{n},\"s\":\"{}\"}}\n", n * 7919 % 10_007)).collect();
        let mut compressed = zstd::encode_all(text.as_bytes(), 1).expect("compresses");
        compressed.truncate(compressed.len() - 5);
        let file = ImportFile::decompress("a.zst", compressed).expect("the start of the file decompresses");
        assert!(file.items().len() > 1);
        assert!(file.truncated_end().is_some_and(|item| item.detail.contains("truncated")));
    }

    #[test]
    fn empty_files_and_unsupported_kinds_are_rejected() {
        assert!(matches!(ImportFile::decompress("a", vec![]), Err(ImportFileError::Empty { .. })));
        assert!(matches!(ImportFile::decompress("a", b" \n".to_vec()), Err(ImportFileError::Empty { .. })));
        assert!(matches!(
            ImportFile::decompress("a", b"PAR1....".to_vec()),
            Err(ImportFileError::UnsupportedKind { .. })
        ));
        assert!(ImportFile::outcome_table("a", b"PAR1....".to_vec()).is_ok_and(|file| file.is_parquet()));
        let truncated = zstd::encode_all(&b"{}"[..], 1).expect("compresses")[..6].to_vec();
        assert!(matches!(ImportFile::decompress("a", truncated), Err(ImportFileError::Decompress { .. })));
    }

    #[test]
    fn a_json_array_is_read_by_element_and_errors_name_the_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Row {
            #[expect(dead_code, reason = "the test checks only whether it deserializes")]
            n: u32,
        }
        let file =
            ImportFile::decompress("a.json", b"[{\"n\":1},\n{\"n\":\"x\"}]".to_vec()).expect("decompresses");
        let items = file.items();
        assert_eq!(items.len(), 2);
        let item = file.decode::<Row>(items[1]).expect_err("not a number");
        assert_eq!((item.line, item.field.as_str()), (2, "n"));
        assert!(item.detail.contains("expected u32"), "{item}");
    }
}
