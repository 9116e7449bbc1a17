//! The page of the tables in the book.

use schemas::columns::{Column, ColumnClass, LogicalType};

use super::Table;

fn type_text(logical_type: &LogicalType) -> String {
    match logical_type {
        LogicalType::Text => "text".to_owned(),
        LogicalType::Binary => "bytes".to_owned(),
        LogicalType::FixedBinary(length) => format!("{length} bytes"),
        LogicalType::Boolean => "true or false".to_owned(),
        LogicalType::UInt16 => "unsigned 16-bit integer".to_owned(),
        LogicalType::UInt32 => "unsigned 32-bit integer".to_owned(),
        LogicalType::UInt64 => "unsigned 64-bit integer".to_owned(),
        LogicalType::Float32 => "32-bit float".to_owned(),
        LogicalType::Float64 => "64-bit float".to_owned(),
        LogicalType::Timestamp => "UTC timestamp in microseconds".to_owned(),
        LogicalType::List(item) => format!("list of {}", type_text(item)),
        LogicalType::Struct(_) => "group".to_owned(),
        LogicalType::TextMap => "map of text to text".to_owned(),
    }
}

fn rows(columns: &[Column], prefix: &str, is_payload: bool, found: &mut Vec<Vec<String>>) {
    for column in columns {
        let name = format!("{prefix}{}", column.name);
        let meaning = column.doc().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!meaning.is_empty(), "column {name} has no description");
        let nullable = if column.nullable { "yes" } else { "no" };
        let is_payload = is_payload || column.class == ColumnClass::Payload;
        let class = match column.class {
            ColumnClass::Metadata if is_payload => "payload",
            ColumnClass::Metadata => "metadata",
            ColumnClass::Payload => "payload",
            ColumnClass::Lookup => "none, searchable",
        };
        let cells = [&format!("`{name}`"), &type_text(&column.logical_type), nullable, class, &meaning];
        found.push(cells.map(str::to_owned).to_vec());
        match column.logical_type {
            LogicalType::Struct(inner) => rows(inner, &format!("{name}."), is_payload, found),
            LogicalType::List(LogicalType::Struct(inner)) => {
                rows(inner, &format!("{name}[]."), is_payload, found)
            }
            _ => {}
        }
    }
}

fn meaning(table: Table) -> &'static str {
    match table {
        Table::Exchanges => "One row per exchange: one request and its response on one edge.",
        Table::Chunks => "One row per distinct chunk of the bodies in the exchanges file of the same name.",
        Table::Sessions => {
            "One row per session and incarnation of the recorder, written when the session closes."
        }
        Table::Trials => "One row per trial of a run.",
        Table::Scores => "One row per trial and evaluator, written by `foreshadow score`.",
        Table::Embeddings => "One row per answer, written by `foreshadow score`.",
    }
}

#[test]
fn the_book_lists_every_column() {
    let mut text = "# Tables and columns\n\nFiles are Parquet. Names with a dot are columns inside a group, `[]` marks a list. Encryption is the key that a \
                    file with `[encryption]` uses for the column.\n"
        .to_owned();
    for table in Table::ALL {
        let mut found = Vec::new();
        rows(table.columns(), "", false, &mut found);
        let head = ["column", "type", "nullable", "encryption", "meaning"];
        text.push_str(&format!(
            "\n## {}\n\n{}\n\n{}",
            table.as_str(),
            meaning(table),
            reference::table(&head, &found)
        ));
    }
    reference::assert_page("tables.md", &text);
}
