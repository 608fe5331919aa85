//! `GET /metrics`: the figures of `GET /v1/status`, as Prometheus reads them. No label comes from a user.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::metrics::Status;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of a status.
pub(super) fn encode(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("wootz");
    registry.register_collector(Box::new(Figures(status)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Figures(Status);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Status { connections, calls, pushes, .. } = &self.0;
        let gauges: [(&str, &str, u64); 7] = [
            ("connections_open", "Open connections", connections.open),
            ("users", "Users with at least one connection", self.0.users as u64),
            ("channels", "Channels that somebody is in", self.0.channels as u64),
            ("calls_running", "Calls that run", calls.running as u64),
            ("calls_waiting", "Calls that wait for their turn", calls.waiting as u64),
            ("memory_bytes", "Resident memory of the server process", self.0.memory_bytes),
            ("uptime_seconds", "Time since the start", self.0.uptime_seconds),
        ];
        for (name, help, value) in gauges {
            put(&mut encoder, name, help, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))?;
        }
        // The format writes `_total` behind the name of a counter itself.
        let counters: [(&str, &str, u64); 15] = [
            ("connections_accepted", "Accepted sockets", connections.accepted),
            ("connections_opened", "Opened connections", connections.opened),
            (
                "connections_opened_over_http2",
                "Opened connections that are streams of HTTP/2",
                connections.opened_over_http2,
            ),
            ("connections_refused", "Handshakes answered with an error", connections.refused),
            ("slow_readers", "Connections closed because they read too slowly", connections.slow_readers),
            ("messages", "Messages received", connections.messages),
            ("calls_succeeded", "Calls that ended well", calls.succeeded),
            ("calls_failed", "Calls that failed", calls.failed),
            ("calls_abandoned", "Calls ended because their browser went", calls.abandoned),
            ("calls_refused", "Calls answered as busy", calls.refused),
            ("calls_timed_out", "Failed calls that ran too long", calls.failures.timed_out),
            ("pushes_queued", "Frames and requests that connections took", pushes.queued),
            ("pushes_dropped", "Frames and requests that connections did not take", pushes.dropped),
            ("pushes_joined", "Requests that shared an equal one", pushes.joined),
            ("pushes_given_up", "Requests that no turn came for", pushes.given_up),
        ];
        for (name, help, value) in counters {
            put(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        let help = "Browsers that were not let in, by the setting that decided";
        let mut refused_by = encoder.encode_descriptor("connections_refused_by", help, None, MetricType::Counter)?;
        for (setting, count) in connections.refused_by.by_setting() {
            ConstCounter::new(count).encode(refused_by.encode_family(&[("setting", setting)])?)?;
        }
        Ok(())
    }
}

fn put(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
