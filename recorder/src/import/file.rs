//! The bytes of a file: unpacked where they are zstd, cut into items.
//!
//! Compression and Parquet are told by their magic bytes, never by the file's name. Does not open files.

use std::io::Read as _;

use serde::de::DeserializeOwned;

use super::stats::SetAside;

/// The most bytes that a file may unpack to: 2 GiB. A small file can unpack to any size.
pub const MAX_UNPACKED_BYTES: u64 = 2 << 30;

/// First bytes of a zstd frame (RFC 8878 section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// First bytes of a Parquet file.
const PARQUET_MAGIC: [u8; 4] = *b"PAR1";

/// First bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It holds nothing.
    #[error("{file} is empty; expected JSON, JSONL, CSV or, for outcomes, Parquet")]
    Empty {
        /// The file.
        file: String,
    },
    /// It is a zstd file of which nothing could be unpacked.
    #[error("{file} cannot be unpacked ({detail}); it may be truncated: copy it again")]
    Unpack {
        /// The file.
        file: String,
        /// What the decoder said.
        detail: String,
    },
    /// It unpacks to too much.
    #[error("{file} unpacks to more than {MAX_UNPACKED_BYTES} bytes; split it into several files")]
    TooBig {
        /// The file.
        file: String,
    },
    /// It is of a kind that is not read.
    #[error("{file} is a {kind} file; expected JSON, JSONL or CSV, plain or zstd: {instead}")]
    Foreign {
        /// The file.
        file: String,
        /// What it is.
        kind: &'static str,
        /// What to do.
        instead: &'static str,
    },
}

/// The unpacked bytes of a file and what they are called.
#[derive(Debug)]
pub struct Source {
    file: String,
    stem: String,
    bytes: Vec<u8>,
    broken_off: Option<String>,
}

/// An item of a file: its line or number from 1, and its JSON text.
pub(super) type Item<'a> = (u64, &'a [u8]);

impl Source {
    /// Unpacks the bytes of a file; `file` is how messages name it.
    ///
    /// # Errors
    /// It is empty, too big, or of a kind that is not read.
    pub fn unpack(file: &str, raw: Vec<u8>) -> Result<Self, SourceError> {
        let foreign = |kind, instead| Err(SourceError::Foreign { file: file.to_owned(), kind, instead });
        if raw.starts_with(&PARQUET_MAGIC) {
            return foreign("Parquet", "only an outcome table may be Parquet (--format outcomes)");
        }
        if raw.starts_with(&GZIP_MAGIC) {
            return foreign("gzip", "unpack it first");
        }
        let (bytes, broken_off) =
            if raw.starts_with(&ZSTD_MAGIC) { unzstd(file, &raw)? } else { (raw, None) };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(SourceError::Empty { file: file.to_owned() });
        }
        Ok(Self { file: file.to_owned(), stem: stem(file), bytes, broken_off })
    }

    /// Takes the bytes of an outcome table, which may be Parquet; anything else is unpacked.
    ///
    /// # Errors
    /// As [`Self::unpack`].
    pub fn table(file: &str, raw: Vec<u8>) -> Result<Self, SourceError> {
        if raw.starts_with(&PARQUET_MAGIC) {
            return Ok(Self { file: file.to_owned(), stem: stem(file), bytes: raw, broken_off: None });
        }
        Self::unpack(file, raw)
    }

    /// Whether it is a Parquet file.
    pub(super) fn is_parquet(&self) -> bool {
        self.bytes.starts_with(&PARQUET_MAGIC)
    }

    /// How messages name it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's name without folder, compression and format.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The unpacked bytes, without a byte order mark.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.bytes)
    }

    /// First 16 hex digits of the BLAKE3 hash of the unpacked bytes: the same file packed and plain has the same.
    #[must_use]
    pub fn digest(&self) -> String {
        blake3::hash(&self.bytes).to_hex().as_str()[..16].to_owned()
    }

    /// Says where the file breaks off, where it does.
    pub(super) fn cut_short(&self) -> Option<SetAside> {
        let detail = self.broken_off.as_ref()?;
        let line = 1 + self.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        Some(self.set_aside(
            line,
            "",
            format!("the file breaks off here ({detail}); copy it again for the rest"),
        ))
    }

    pub(super) fn set_aside(&self, line: u64, field: &str, detail: String) -> SetAside {
        SetAside { file: self.file.clone(), line, field: field.to_owned(), detail }
    }

    /// The lines that are not blank, or the elements where the file is one JSON array.
    pub(super) fn items(&self) -> Vec<Item<'_>> {
        if self.bytes().trim_ascii_start().starts_with(b"[") {
            let array: Result<Vec<&serde_json::value::RawValue>, _> = serde_json::from_slice(self.bytes());
            if let Ok(array) = array {
                return (1..).zip(array.into_iter().map(|element| element.get().as_bytes())).collect();
            }
        }
        let lines = (1..).zip(self.bytes().split(|byte| *byte == b'\n'));
        lines.filter(|(_, line)| !line.trim_ascii().is_empty()).collect()
    }

    /// Reads an item, or says which field is wrong.
    pub(super) fn decode<T: DeserializeOwned>(&self, (line, text): Item<'_>) -> Result<T, SetAside> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let told = |field: &str, error: &serde_json::Error| {
            // In a line file serde's own line number is always 1 and would contradict ours.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            self.set_aside(line, field, format!("{text} (column {})", error.column()))
        };
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // `?` is where the text broke off before a field was known.
            told(path.trim_end_matches(['?', '.']), error.inner())
        })?;
        json.end().map_err(|error| told("", &error))?;
        Ok(value)
    }
}

fn unzstd(file: &str, raw: &[u8]) -> Result<(Vec<u8>, Option<String>), SourceError> {
    let unpack =
        |error: std::io::Error| SourceError::Unpack { file: file.to_owned(), detail: error.to_string() };
    let mut decoder = zstd::stream::read::Decoder::new(raw).map_err(unpack)?;
    let mut bytes = Vec::new();
    // Read piece by piece: what came before a broken place is still good.
    let mut buffer = vec![0; 1 << 16];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok((bytes, None)),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if bytes.is_empty() => return Err(unpack(error)),
            Err(error) => return Ok((bytes, Some(error.to_string()))),
        }
        if bytes.len() as u64 > MAX_UNPACKED_BYTES {
            return Err(SourceError::TooBig { file: file.to_owned() });
        }
    }
}

fn stem(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let name = name.strip_suffix(".zst").unwrap_or(name);
    let suffixes = [".jsonl", ".json", ".csv", ".parquet"];
    let name = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    name.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_told_by_its_magic_bytes() {
        let packed = zstd::encode_all(&b"{\"a\":1}\n{\"a\":2}\n"[..], 1).expect("packs");
        let source = Source::unpack("x/run.v2.jsonl", packed).expect("reads");
        assert_eq!((source.stem(), source.items().len()), ("run.v2", 2));
        let plain = Source::unpack("x.jsonl.zst", b"{\"a\":1}\n{\"a\":2}\n".to_vec()).expect("reads");
        assert_eq!(plain.digest(), source.digest());
    }

    #[test]
    fn what_comes_before_a_broken_place_is_kept() {
        let text: String =
            (0..20_000).map(|n| format!("{{\"n\":{n},\"s\":\"{}\"}}\n", n * 7919 % 10_007)).collect();
        let mut packed = zstd::encode_all(text.as_bytes(), 1).expect("packs");
        packed.truncate(packed.len() - 5);
        let source = Source::unpack("a.zst", packed).expect("its beginning reads");
        assert!(source.items().len() > 1);
        assert!(source.cut_short().is_some_and(|aside| aside.detail.contains("breaks off")));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        assert!(matches!(Source::unpack("a", vec![]), Err(SourceError::Empty { .. })));
        assert!(matches!(Source::unpack("a", b" \n".to_vec()), Err(SourceError::Empty { .. })));
        assert!(matches!(Source::unpack("a", b"PAR1....".to_vec()), Err(SourceError::Foreign { .. })));
        assert!(Source::table("a", b"PAR1....".to_vec()).is_ok_and(|source| source.is_parquet()));
        let cut = zstd::encode_all(&b"{}"[..], 1).expect("packs")[..6].to_vec();
        assert!(matches!(Source::unpack("a", cut), Err(SourceError::Unpack { .. })));
    }

    #[test]
    fn an_array_is_read_by_element_and_a_broken_field_is_named() {
        #[derive(Debug, serde::Deserialize)]
        struct Row {
            #[expect(dead_code, reason = "only whether it reads is looked at")]
            n: u32,
        }
        let source = Source::unpack("a.json", b"[{\"n\":1},\n{\"n\":\"x\"}]".to_vec()).expect("reads");
        let items = source.items();
        assert_eq!(items.len(), 2);
        let aside = source.decode::<Row>(items[1]).expect_err("not a number");
        assert_eq!((aside.line, aside.field.as_str()), (2, "n"));
        assert!(aside.detail.contains("expected u32"), "{aside}");
    }
}
