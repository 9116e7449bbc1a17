//! Outcome tables: trials without transcripts, in CSV or Parquet.
//!
//! Required columns: `case`, `trial`, `success`. Optional ones: `seconds`, `input_tokens`, `output_tokens`, `cost`, `error`,
//! `answer`, `cluster`, `weight`, `batch`, `slice.NAME` for each slice, and in Parquet `embedding`. Other columns are ignored and listed.

mod cell;
mod columns;
mod csv_dialect;
mod csv_table;
mod parquet_table;
mod row;

use super::file::ImportFile;
use super::parsed_file::ParsedFile;

pub use self::columns::{OutcomeColumns, OutcomeTableError};

/// Reads every row of the table.
///
/// # Errors
/// The table lacks a column, has one of an unsupported type, or is no readable CSV or Parquet.
pub(super) fn read(file: &ImportFile, columns: &OutcomeColumns) -> Result<ParsedFile, OutcomeTableError> {
    if file.is_parquet() { parquet_table::read(file, columns) } else { csv_table::read(file, columns) }
}

#[cfg(test)]
mod tests {
    use schemas::trial::TrialEnding;

    use super::*;

    fn parse(text: &str, mapped: &[&str]) -> Result<ParsedFile, OutcomeTableError> {
        let mut columns = OutcomeColumns::default();
        for one in mapped {
            columns.map_column(one)?;
        }
        read(&ImportFile::decompress("t.csv", text.as_bytes().to_vec()).expect("reads"), &columns)
    }

    #[test]
    fn known_columns_are_read_and_others_listed() {
        let text = "case,trial,success,seconds,input_tokens,cost,error,answer,slice.tier,mood\n\
                    a,0,1,1.5,12,0.25,,done,gold,happy\n\"b, c\",1,false,,,,timeout,,,\n";
        let parsed = parse(text, &[]).expect("the header is complete");
        assert_eq!((parsed.skipped.len(), parsed.ignored_columns), (0, vec!["mood".to_owned()]));
        let [a, b] = &parsed.transcripts[..] else { panic!("two rows") };
        assert_eq!(
            (a.reported.duration_us, a.reported.usage.cost_usd, a.success),
            (Some(1_500_000), Some(0.25), Some(true))
        );
        assert!(a.is_in("tier", "gold"));
        assert_eq!((b.case.as_str(), b.trial, b.ending), ("b, c", 1, TrialEnding::Failed));
    }

    #[test]
    fn only_a_row_that_names_no_trial_is_skipped() {
        let text = "case,trial,success,seconds\na,0,1,1\nb,x,1,1\nc,0,maybe,1\nd,0,1,-1\ne,0,1\n,0,1,1\nf,0,,nan\n\
                    g,0,None,1\n,,,\nh,0,1,1,,\n";
        let parsed = parse(text, &[]).expect("the header is complete");
        let skipped: Vec<_> = parsed.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
        assert_eq!(skipped, [(3, "trial"), (6, ""), (7, "case")]);
        let read: Vec<_> = parsed
            .transcripts
            .iter()
            .map(|one| (one.case.as_str(), one.success, one.has_lost_outcome(), one.unreadable_cells.len()))
            .collect();
        assert_eq!(
            read,
            [
                ("a", Some(true), false, 0),
                ("c", None, true, 0),
                ("d", Some(true), false, 1),
                ("f", None, false, 1),
                ("g", None, true, 0),
                ("h", Some(true), false, 0),
            ]
        );
        let message =
            parsed.transcripts[1].unreadable_label.as_ref().expect("maybe is no outcome").to_string();
        assert_eq!(
            message,
            "t.csv:4: success: expected 1, 0, true, false, yes, no, pass, fail, or a blank cell where unknown, found \"maybe\""
        );
        let message = parsed.transcripts[2].unreadable_cells[0].to_string();
        assert_eq!(message, "t.csv:5: seconds: expected a number of at least 0, such as 1.5, found \"-1\"");
    }

    #[test]
    fn spreadsheet_exports_are_read() {
        let rows = |separator: &str, end: &str, decimal: &str| {
            let rows = [
                ["case", "trial", "success", "seconds"],
                ["a", "0.0", "t", "1.5"],
                ["b", "1", "failed", "2"],
            ];
            let rows = rows.map(|row| row.join(separator));
            rows.join(end).replace("1.5", decimal).replace("0.0", &"0.0".replace('.', &decimal[1..2])) + end
        };
        let tables = [
            rows(",", "\n", "1.5"),
            rows(";", "\r\n", "1,5"),
            rows(";", "\r", "1.5"),
            rows("\t", "\r\n", "1,5"),
            format!("\u{feff}{}", rows(";", "\n", "1,5")),
            format!("sep=;\r\n{}", rows(";", "\r\n", "1,5")),
            format!("\"SEP=|\"\n{}", rows("|", "\n", "1.5")),
        ];
        let utf16: Vec<u8> = std::iter::once(0xfeff_u16)
            .chain(rows("\t", "\r\n", "1,5").encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in tables.into_iter().map(String::into_bytes).chain([utf16]) {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            let file = ImportFile::decompress("t.csv", bytes).expect("reads");
            let parsed = read(&file, &OutcomeColumns::default()).expect(&shown);
            assert_eq!(parsed.skipped, [], "{shown}");
            let read: Vec<_> = parsed
                .transcripts
                .iter()
                .map(|one| (one.case.as_str(), one.trial, one.success, one.reported.duration_us))
                .collect();
            assert_eq!(
                read,
                [("a", 0, Some(true), Some(1_500_000)), ("b", 1, Some(false), Some(2_000_000))],
                "{shown}"
            );
        }
    }

    #[test]
    fn two_decimal_marks_are_refused() {
        let text = "case;trial;success;seconds\na;0;1;1,5\nb;0;1;1.234\n";
        let error = parse(text, &[]).expect_err("1.234 may be 1234").to_string();
        assert_eq!(
            error,
            "t.csv:3: seconds: expected one decimal mark in the whole table; write all numbers with a point, \
             found \"1.234\", and the other mark on line 2"
        );
    }

    #[test]
    fn lines_are_counted_as_editors_count_them() {
        for end in ["\n", "\r\n", "\r"] {
            let rows = ["case,trial,success", "\"a", "b\",0,1", "", "c,x,1", "d,0,1", "e,y,1"];
            let parsed = parse(&rows.join(end), &[]).expect("the header is complete");
            let lines: Vec<u64> = parsed.skipped.iter().map(|item| item.line).collect();
            assert_eq!(lines, [5, 7], "{end:?}");
            let lines: Vec<u64> = parsed.transcripts.iter().map(|one| one.line).collect();
            assert_eq!(lines, [2, 6], "{end:?}");
        }
    }

    #[test]
    fn infrastructure_failures_are_recognized_by_their_text() {
        let mut columns = OutcomeColumns::default();
        columns.infrastructure("502");
        let text = "case,trial,success,error\na,0,error,HTTP 502\na,1,0,too long\na,-1,1,\n";
        let file = ImportFile::decompress("t.csv", text.as_bytes().to_vec()).expect("reads");
        let parsed = read(&file, &columns).expect("the header is complete");
        let endings: Vec<_> = parsed.transcripts.iter().map(|one| one.ending).collect();
        assert_eq!(endings, [TrialEnding::Infrastructure, TrialEnding::Failed]);
        assert!(!parsed.transcripts[0].has_lost_outcome(), "it is missing by rule");
        assert_eq!((parsed.skipped.len(), parsed.skipped[0].line), (1, 4));
    }

    #[test]
    fn cluster_and_weight_are_read_and_a_bad_weight_refuses_the_table() {
        let text = "case,trial,success,user_id,weight,batch\na,0,1,u1,2.5,monday\nb,0,1,,1,\n";
        let parsed = parse(text, &["cluster=user_id"]).expect("all columns are present");
        let read: Vec<_> = parsed
            .transcripts
            .iter()
            .map(|one| (one.cluster.as_deref(), one.weight, one.batch.as_deref()))
            .collect();
        assert_eq!(read, [(Some("u1"), Some(2.5), Some("monday")), (None, Some(1.0), None)]);
        for bad in ["", "0", "-1", "nan", "inf", "many"] {
            let text = format!("case,trial,success,weight\na,0,1,1\na,1,1,{bad}\n");
            let error = parse(&text, &[]).expect_err("a weight is missing").to_string();
            assert!(error.starts_with("t.csv:3: weight: expected a finite number above 0"), "{error}");
        }
    }

    #[test]
    fn columns_can_be_mapped_and_joined() {
        let text = "service,task,run,success\ngithub,x,run-2,1\n";
        let parsed = parse(text, &["case=service+task", "trial=run", "slice.service=service"])
            .expect("all columns are present");
        let one = &parsed.transcripts[0];
        assert_eq!((one.case.as_str(), one.trial, one.is_in("service", "github")), ("github/x", 2, true));
        let error = parse(text, &[]).expect_err("no case");
        assert!(error.to_string().contains("--column case=COLUMN"), "{error}");
        assert!(matches!(parse(text, &["kase=task"]), Err(OutcomeTableError::Mapping { .. })));
    }
}
