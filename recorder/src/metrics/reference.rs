//! The page of the metrics in the book.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use schemas::id::{AgentId, TenantId};

use super::kafka_archiver::ArchiverCounters;
use super::recorder::RecorderMetrics;
use crate::capture::sessions::{SessionRegistry, SessionScope};

fn recorder(publishes: bool) -> Registry {
    let scope = SessionScope {
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        build: None,
    };
    let hour = Duration::from_secs(3600);
    let sessions = Arc::new(SessionRegistry::new(scope, "i".to_owned(), hour, hour));
    // A counter with labels appears only with a value.
    sessions.shed_anonymous("queue full");
    let clock: crate::Clock = Arc::new(|| 0);
    RecorderMetrics { sessions, gauges: Arc::default(), journal_limit: 1, publishes, clock }.registry()
}

fn archiver() -> Registry {
    let counters = ArchiverCounters::default();
    counters.set_lag(0, 0);
    counters.registry()
}

/// The rows of every metric of these registries: name with labels, kind, meaning.
fn rows(registries: &[Registry]) -> Vec<Vec<String>> {
    let mut found: BTreeMap<String, (String, String, String)> = BTreeMap::new();
    for registry in registries {
        let mut page = String::new();
        text::encode(&mut page, registry).expect("encodes");
        for line in page.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                found.entry(name.to_owned()).or_default().1 = help.to_owned();
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                found.entry(name.to_owned()).or_default().0 = kind.to_owned();
            } else if let Some((sample, _)) = line.rsplit_once(' ')
                && let Some((name, labels)) = sample.split_once('{')
            {
                let names =
                    labels.trim_end_matches('}').split(',').filter_map(|label| label.split('=').next());
                let labels = names.collect::<Vec<_>>().join(", ");
                found.entry(name.trim_end_matches("_total").to_owned()).or_default().2 = labels;
            }
        }
    }
    let name = |name: &str, kind: &str| format!("`{name}{}`", if kind == "counter" { "_total" } else { "" });
    let row = |(metric, (kind, help, labels)): (String, (String, String, String))| {
        vec![name(&metric, &kind), kind, labels, help]
    };
    found.into_iter().map(row).collect()
}

#[test]
fn the_book_lists_every_metric() {
    let head = ["metric", "kind", "labels", "meaning"];
    let recorder = rows(&[recorder(true), recorder(false)]);
    let archiver = rows(&[archiver()]);
    assert!(recorder.len() > 10 && archiver.len() > 10, "{recorder:?} {archiver:?}");
    let page = format!(
        "# Metrics\n\n`foreshadow record` and `foreshadow archive` serve these at `/metrics` when `[metrics] listen` is set.\n\n\
         ## foreshadow record\n\n{}\n## foreshadow archive\n\n{}",
        reference::table(&head, &recorder),
        reference::table(&head, &archiver)
    );
    reference::assert_page("metrics.md", &page);
}
