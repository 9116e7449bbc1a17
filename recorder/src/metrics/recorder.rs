//! Metrics of a recorder: exchange counts, journal size and lag.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::journal_gauges::JournalGauges;
use super::page::PREFIX;
use super::page::Page;
use crate::Clock;
use crate::capture::sessions::SessionRegistry;

/// Collector of a recorder's metrics.
pub(crate) struct RecorderMetrics {
    pub(crate) sessions: Arc<SessionRegistry>,
    pub(crate) gauges: Arc<JournalGauges>,
    pub(crate) journal_limit: u64,
    pub(crate) publishes: bool,
    pub(crate) clock: Clock,
}

impl std::fmt::Debug for RecorderMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecorderMetrics")
    }
}

impl RecorderMetrics {
    /// A registry with this collector.
    pub(crate) fn registry(self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        registry
    }
}

impl Collector for RecorderMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (counts, gauges) = (self.sessions.counts(), &self.gauges);
        let in_flight = counts.started.saturating_sub(counts.journaled).saturating_sub(counts.shed_total());
        let mut page = Page(encoder);
        page.counter("exchanges_started", "Exchanges whose request head arrived", &counts.started)?;
        page.counter("exchanges_journaled", "Exchanges that are durable in the journal", &counts.journaled)?;
        let shed = counts.shed.iter().map(|(reason, count)| (reason.as_str(), *count));
        page.counters("exchanges_shed", "Exchanges that were not recorded, by reason", "reason", shed)?;
        page.gauge("exchanges_in_flight", "Exchanges that are neither journaled nor shed", &in_flight)?;
        if self.publishes {
            page.counter("exchanges_published", "Exchanges that Kafka acknowledged", &counts.published)?;
            page.counter("entries_resent", "Exchanges and close rows sent to Kafka again", &gauges.resent())?;
            let up = u64::from(!gauges.brokers_lost());
            page.gauge("kafka_up", "Whether the brokers acknowledge messages (1) or not (0)", &up)?;
        } else {
            page.counter("exchanges_archived", "Exchanges in committed Parquet files", &counts.archived)?;
        }
        page.counter(
            "connections_upgraded",
            "Upgraded connections that were forwarded without a recording",
            &counts.upgraded,
        )?;
        let losses = gauges.body_losses();
        page.counter(
            "bodies_not_stored",
            "Bodies that stored exchanges lack: not decompressed, too large, or no memory to redact them",
            &losses.not_stored,
        )?;
        page.counter(
            "bodies_not_decoded",
            "Exchanges whose bodies are stored and not decoded, because their values need too much memory",
            &losses.not_decoded,
        )?;
        page.counter("records_skipped", "Journal records that cannot be decoded", &gauges.skipped())?;
        page.gauge("journal_bytes", "Bytes of the journal on disk", &gauges.journal_bytes())?;
        page.gauge("journal_limit_bytes", "Upper bound of the journal on disk", &self.journal_limit)?;
        page.gauge(
            "lag_records",
            "Durable journal records that are neither archived nor published",
            &gauges.lag_records(),
        )?;
        let seconds = gauges.lag_seconds((self.clock)());
        page.gauge("lag_seconds", "Time since the oldest of these exchanges ended", &seconds)
    }
}
