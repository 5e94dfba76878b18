//! The words of the Prometheus format, from plain numbers: one family, one sample of it.
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::histogram::Histogram;

/// Name, what it means, and its labels.
pub struct Family(pub &'static str, pub &'static str, pub &'static [&'static str]);

pub fn family(
    Family(name, help, _): &Family,
    kind: MetricType,
    metrics: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name((*name).to_owned());
    family.set_help((*help).to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn metric(Family(_, _, labels): &Family, values: &[&str]) -> Metric {
    let pairs = labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus numbers are floats")]
pub const fn number(count: u64) -> f64 {
    count as f64
}

pub fn counter(family: &Family, values: &[&str], value: f64) -> Metric {
    let mut metric = metric(family, values);
    let mut cell = Counter::default();
    cell.set_value(value);
    metric.set_counter(cell);
    metric
}

pub fn gauge(family: &Family, values: &[&str], value: f64) -> Metric {
    let mut metric = metric(family, values);
    let mut cell = Gauge::default();
    cell.set_value(value);
    metric.set_gauge(cell);
    metric
}

pub fn histogram(family: &Family, values: &[&str], histogram: &Histogram) -> Metric {
    let reading = histogram.read();
    let buckets = reading.buckets.into_iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut cell = prometheus::proto::Histogram::default();
    cell.set_bucket(buckets.collect());
    cell.set_sample_count(reading.count);
    cell.set_sample_sum(reading.sum);
    let mut metric = metric(family, values);
    metric.set_histogram(cell);
    metric
}
