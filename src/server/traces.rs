//! Sends spans to the collector, off the request path: in batches, again where the collector says so,
//! and never so that anything waits for it. What it does not take is counted, and said once.
use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep, timeout_at},
};

use super::Process;
use crate::{
    gateway::tracing::Collector,
    shared::http_client::{self, Client},
    telemetry::{
        metrics::TraceMetrics,
        tracing::{Finished, otlp},
    },
};

/// Requests in one batch.
const BATCH: usize = 512;
/// How long the first of a batch waits for more.
const LINGER: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Sent so often at most, after a second, two, four, or as the collector says.
const TRIES: u32 = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Bytes of the collector's answer.
const ANSWER: usize = 64 << 10;

/// Why the last batch was not taken; none while all is well.
#[derive(Default)]
pub struct Outage(Mutex<Option<String>>);

impl Outage {
    pub fn reason(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// The log hears of it when it begins and when it ends.
    fn note(&self, outcome: &Result<(), String>) {
        let mut reason = self.0.lock();
        match outcome {
            Ok(()) if reason.is_some() => log::info!("the trace collector takes spans again"),
            Err(why) if reason.is_none() => {
                log::error!("the trace collector takes no spans, they are lost: {why}");
            }
            _ => {}
        }
        *reason = outcome.as_ref().err().cloned();
    }
}

/// Runs as long as the process.
pub(super) async fn export(process: Arc<Process>) {
    let shared = process.reloader.shared().clone();
    let Some(mut receiver) = shared.traces.receiver() else { return };
    loop {
        let batch = next_batch(&process, &mut receiver).await;
        if batch.is_empty() {
            return;
        }
        let (count, spans) = (batch.len(), batch.iter().map(Finished::spans).sum());
        let metrics = &shared.metrics.traces;
        match process.gateway().tracing.as_ref() {
            Some(tracing) => {
                let sent = send(&process, &shared.http_client, &tracing.collector, &batch).await;
                count_batch(metrics, &sent, spans);
                process.traces.note(&sent.map(drop));
            }
            // Turned off by a reload meanwhile.
            None => metrics.dropped().inc_by(spans),
        }
        shared.traces.done(count);
    }
}

fn count_batch(metrics: &TraceMetrics, sent: &Result<u64, String>, spans: u64) {
    let rejected = *sent.as_ref().unwrap_or(&spans);
    metrics.exported().inc_by(spans.saturating_sub(rejected));
    metrics.failed().inc_by(rejected.min(spans));
}

async fn next_batch(process: &Process, receiver: &mut Receiver<Finished>) -> Vec<Finished> {
    let mut batch = Vec::new();
    receiver.recv_many(&mut batch, BATCH).await;
    let until = Instant::now() + LINGER;
    let mut draining = process.drain.subscribe();
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        let more = tokio::select! {
            more = timeout_at(until, receiver.recv_many(&mut batch, room)) => more.unwrap_or(0),
            // Who leaves waits for nothing.
            _ = draining.wait_for(|it| *it) => {
                while let Some(it) = (batch.len() < BATCH).then(|| receiver.try_recv().ok()).flatten() {
                    batch.push(it);
                }
                0
            }
        };
        if more == 0 {
            break;
        }
    }
    batch
}

/// How many spans of the batch the collector did not take; or why it took none.
async fn send(
    process: &Process,
    client: &Client,
    collector: &Collector,
    batch: &[Finished],
) -> Result<u64, String> {
    let mut headers = collector.headers.clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(otlp::CONTENT_TYPE));
    let request = http_client::Request {
        method: Method::POST,
        url: collector.url.clone(),
        headers,
        body: otlp::encode(batch, &collector.service).into(),
        timeout: TIMEOUT,
        most_bytes: ANSWER,
    };
    let mut tries = 1;
    loop {
        let (why, wait) = match client.send(request.clone()).await {
            Ok(answer) if answer.status.is_success() => {
                let (rejected, why) = otlp::rejected(&answer.body);
                if rejected > 0 {
                    log::warn!("the trace collector rejects {rejected} spans: {why}");
                }
                return Ok(rejected);
            }
            Ok(answer) if is_transient(answer.status) => {
                (format!("it answers {}", answer.status), wait(&answer.headers, tries))
            }
            Ok(answer) => return Err(format!("it answers {}", answer.status)),
            Err(why) => (why.to_string(), wait(&HeaderMap::new(), tries)),
        };
        if tries >= TRIES || process.is_draining() {
            return Err(why);
        }
        tries += 1;
        let mut draining = process.drain.subscribe();
        tokio::select! {
            () = sleep(wait) => {}
            _ = draining.wait_for(|it| *it) => {}
        }
    }
}

/// Those that OTLP says are worth another try.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn wait(headers: &HeaderMap, tries: u32) -> Duration {
    let asked = headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
    let own = Duration::from_secs(1 << (tries - 1).min(5));
    asked.map_or(own, Duration::from_secs).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_the_collectors_to_say() {
        let check = |asked: Option<&str>, tries, expected| {
            let mut headers = HeaderMap::new();
            if let Some(asked) = asked {
                headers.insert(header::RETRY_AFTER, asked.parse().unwrap());
            }
            assert_eq!(wait(&headers, tries).as_secs(), expected, "{asked:?} {tries}");
        };
        check(None, 1, 1);
        check(None, 3, 4);
        check(Some("7"), 1, 7);
        check(Some("3600"), 1, 30);
        check(Some("Wed, 25 Nov 2026 10:00:00 GMT"), 2, 2);
    }
}
