//! What a scrape finds: a value of each series of each declared metric, as OpenMetrics text.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit as OpenUnit};

use super::declared::{Declaration, Kind, Unit};
use super::histogram::Counted;

/// Values of declared metrics.
#[derive(Debug, Default)]
pub struct Samples {
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    declared: Declaration,
    series: Vec<(Vec<(&'static str, String)>, Value)>,
}

#[derive(Debug)]
enum Value {
    Count(u64),
    Amount(f64),
    Histogram(Counted),
}

impl Samples {
    /// The value of a counter. The labels are in the order of their declaration.
    pub fn count(&mut self, of: Declaration, labels: &[&str], value: u64) {
        self.push(of, labels, Value::Count(value));
    }

    /// The value of a gauge, or of a counter of parts of a unit.
    pub fn amount(&mut self, of: Declaration, labels: &[&str], value: f64) {
        self.push(of, labels, Value::Amount(value));
    }

    /// Whether something is so, as a gauge: 1 or 0.
    pub fn is(&mut self, of: Declaration, labels: &[&str], value: bool) {
        self.amount(of, labels, if value { 1.0 } else { 0.0 });
    }

    /// The values of a histogram.
    pub fn histogram(&mut self, of: Declaration, labels: &[&str], value: Counted) {
        self.push(of, labels, Value::Histogram(value));
    }

    fn push(&mut self, of: Declaration, labels: &[&str], value: Value) {
        let family = self.families.entry(of.name).or_insert_with(|| Family { declared: of, series: Vec::new() });
        let labels = of.labels.iter().copied().zip(labels.iter().map(|value| (*value).to_owned())).collect();
        family.series.push((labels, value));
    }

    /// The metrics that have a value.
    pub fn declared(&self) -> impl Iterator<Item = &Declaration> {
        self.families.values().map(|family| &family.declared)
    }

    /// All as OpenMetrics text.
    #[must_use]
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { declared, series } in self.families.values() {
            let unit = match declared.unit {
                Unit::None => None,
                Unit::Bytes => Some(OpenUnit::Bytes),
                Unit::Seconds => Some(OpenUnit::Seconds),
            };
            let kind = match declared.kind {
                Kind::Counter | Kind::Steps => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(declared.name, declared.says(), unit.as_ref(), kind)?;
            for (labels, value) in series {
                if labels.is_empty() {
                    value.encode(declared.kind, &mut metric)?;
                } else {
                    value.encode(declared.kind, &mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

type Exemplars<'e> = Option<&'e HashMap<usize, Exemplar<NoLabelSet, f64>>>;

impl Value {
    fn encode(&self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (self, kind) {
            (Self::Count(count), Kind::Counter | Kind::Steps) => {
                encoder.encode_counter::<NoLabelSet, u64, f64>(count, None)
            }
            (Self::Amount(amount), Kind::Counter | Kind::Steps) => {
                encoder.encode_counter::<NoLabelSet, f64, f64>(amount, None)
            }
            (Self::Count(count), _) => encoder.encode_gauge(&(*count as f64)),
            (Self::Amount(amount), _) => encoder.encode_gauge(amount),
            (Self::Histogram(counted), _) => {
                let exemplars: Exemplars<'_> = None;
                encoder.encode_histogram(counted.sum, counted.count, &counted.buckets, exemplars)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::declared;
    use super::*;

    #[test]
    fn samples_are_open_metrics() {
        let mut samples = Samples::default();
        samples.count(declared::RELEASED, &["desk"], 7);
        samples.amount(declared::OUTBOX_OLDEST, &["desk"], 1.5);
        samples.is(declared::READY, &[], true);
        let text = samples.text();
        let expected = "# HELP bailiwick_outbox_oldest_release_seconds How long the oldest release that waits for a \
                        destination has waited in this process. 0 when none waits.\n\
                        # TYPE bailiwick_outbox_oldest_release_seconds gauge\n\
                        # UNIT bailiwick_outbox_oldest_release_seconds seconds\n\
                        bailiwick_outbox_oldest_release_seconds{destination=\"desk\"} 1.5\n\
                        # HELP bailiwick_ready 1 while the gateway can take records: what /readyz says.\n\
                        # TYPE bailiwick_ready gauge\n\
                        bailiwick_ready 1.0\n\
                        # HELP bailiwick_released_bytes Bytes that a destination took.\n\
                        # TYPE bailiwick_released_bytes counter\n\
                        # UNIT bailiwick_released_bytes bytes\n\
                        bailiwick_released_bytes_total{destination=\"desk\"} 7\n\
                        # EOF\n";
        assert_eq!(text, expected);
    }
}
