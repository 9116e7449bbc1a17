//! Metrics: the values that recorder and archiver report, and the HTTP endpoint that serves them to Prometheus.

pub(crate) mod counts;
pub(crate) mod journal_gauges;
#[cfg(feature = "kafka")]
pub(crate) mod kafka_archiver;
pub(crate) mod page;
pub(crate) mod recorder;
#[cfg(all(test, feature = "kafka"))]
mod reference;
pub(crate) mod server;
