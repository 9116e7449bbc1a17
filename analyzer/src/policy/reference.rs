//! The page of `policy.toml` in the book.

use schemas::equality::ArgumentRule;

use super::{INVARIANTS, KeyType, METRICS, Margin, POLICY_KEYS};

fn value_text(value: KeyType) -> String {
    match value {
        KeyType::Number(min, max) => format!("number, {min} to {max}"),
        KeyType::Integer(min, max) => format!("integer, {min} to {max}"),
        KeyType::Bool => "bool".to_owned(),
        KeyType::Text => "string".to_owned(),
        KeyType::Shares => "table of numbers, 0 to 1".to_owned(),
        KeyType::Texts => "list of strings".to_owned(),
        KeyType::Metrics => "list of metrics".to_owned(),
        KeyType::Criteria => "table of strings".to_owned(),
        KeyType::Schema => "JSON Schema, as a table or a string".to_owned(),
        KeyType::Schemas => "table of JSON Schemas".to_owned(),
        KeyType::Rules => "list of tables".to_owned(),
        KeyType::Rule => {
            ArgumentRule::names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        }
    }
}

fn margin_text(margin: Margin) -> String {
    match margin {
        Margin::Difference(share) => format!("{share} (difference)"),
        Margin::Ratio(ratio) => format!("{ratio:.2} (ratio)"),
        Margin::OfDispersion(share) => format!("{share} (share of the baseline's dispersion)"),
    }
}

#[test]
fn the_book_lists_every_policy_key() {
    let mut text = "# policy.toml\n\n`foreshadow analyze --policy` and `foreshadow gate` read this file. Every key is optional \
                    unless its default says `required`. A key or value that is not allowed is an error that names its line.\n"
        .to_owned();
    let mut tables: Vec<&str> = POLICY_KEYS.iter().map(|known| known.table).collect();
    tables.dedup();
    for table in tables {
        let rows: Vec<Vec<String>> = POLICY_KEYS
            .iter()
            .filter(|known| known.table == table)
            .map(|known| {
                let cells = [
                    value_text(known.value),
                    known.unit.to_owned(),
                    known.default.to_owned(),
                    known.description.to_owned(),
                ];
                [vec![format!("`{}`", known.key)], cells.to_vec()].concat()
            })
            .collect();
        let title = if table.is_empty() { "Top level".to_owned() } else { format!("`[{table}]`") };
        let head = ["key", "value", "unit", "default", "effect"];
        text.push_str(&format!("\n## {title}\n\n{}", reference::table(&head, &rows)));
    }
    let rows: Vec<Vec<String>> = METRICS
        .iter()
        .map(|spec| {
            let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
            vec![
                format!("`{}`", spec.name),
                spec.family.to_owned(),
                margin_text(spec.margin),
                yes(spec.decides),
                yes(spec.required),
            ]
        })
        .collect();
    let head = ["metric", "family", "margin", "decides", "required"];
    text.push_str(&format!("\n## Metrics and their defaults\n\n{}", reference::table(&head, &rows)));
    let names: Vec<String> = INVARIANTS.iter().map(|name| format!("`{name}`")).collect();
    text.push_str(&format!(
        "\nAn invariant that the baseline breaks too is compared as the metric `invariant.NAME`, with NAME one of {}.\n",
        names.join(", ")
    ));
    reference::assert_page("policy-toml.md", &text);
}
