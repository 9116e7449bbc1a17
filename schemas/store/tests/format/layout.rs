//! The layout of a file: what point lookups need, and no more.

use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use schemas::keys::Digest;
use store::table::{self, Chunk, Table, WriteOptions};

use super::sample::{close, exchange};

fn metadata(file: Vec<u8>) -> ParquetMetaData {
    ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&bytes::Bytes::from(file))
        .expect("has a page index")
}

/// The path, whether it has a bloom filter, and whether it has statistics, of each column.
fn columns(metadata: &ParquetMetaData) -> Vec<(String, bool, bool)> {
    let columns = metadata.row_group(0).columns().iter();
    columns
        .map(|column| {
            let path = column.column_path().string();
            (path, column.bloom_filter_offset().is_some(), column.statistics().is_some())
        })
        .collect()
}

#[test]
fn files_have_bloom_filters_page_indexes_and_an_order() {
    let exchanges = [exchange(u32::from, true), exchange(u32::from, false)];
    let chunks =
        [Chunk { chunk: 0, digest: Digest([1; 16]), bytes: Some(vec![0, 255].into()), stored_in: None }];
    let options = WriteOptions::default();
    let files = [
        (Table::Exchanges, "session", table::encode(Table::Exchanges, &exchanges, &options)),
        (Table::Chunks, "digest", table::encode(Table::Chunks, &chunks, &options)),
        (Table::Sessions, "session", table::encode(Table::Sessions, &[close(true)], &options)),
    ];
    for (table, look_up, file) in files {
        let metadata = metadata(file.expect("fits"));
        let columns = columns(&metadata);
        let with_bloom: Vec<&str> =
            columns.iter().filter(|(_, bloom, _)| *bloom).map(|(path, ..)| path.as_str()).collect();
        assert_eq!(with_bloom, [look_up], "{table:?}");
        let (index, (_, _, statistics)) =
            columns.iter().enumerate().find(|(_, (path, ..))| path == look_up).expect("is there");
        assert!(statistics, "{table:?}");
        let group = metadata.row_group(0);
        assert!(group.column(index).column_index_offset().is_some(), "{table:?} has no column index");
        assert!(group.columns().iter().all(|column| column.offset_index_offset().is_some()), "{table:?}");
        let order = group.sorting_columns().expect("the order is declared");
        let first = usize::try_from(order[0].column_idx).expect("a place");
        let expected = if table == Table::Chunks { "chunk" } else { "session" };
        assert_eq!(group.column(first).column_path().string(), expected);
        for payload in ["bytes", "request.template", "operation.result", "operation.output"] {
            if let Some((.., statistics)) = columns.iter().find(|(path, ..)| path == payload) {
                assert!(!statistics, "{table:?}: {payload} has statistics");
            }
        }
    }
}
