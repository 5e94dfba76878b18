//! Calls of tools, by server and tool, and whether servers answer. Tools are those that a server lists, and
//! of each server so many at most: the rest are counted together.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    family::{Family, counter, family, gauge, histogram, number},
    handles::{McpOutcome, McpOutcomes},
    histogram::{EXCHANGE, Histogram},
    keep::Keep,
};

const CALLS: Family = Family(
    "tollgate_mcp_calls_total",
    "Calls of tools, by server, tool and how they ended.",
    &["server", "tool", "result"],
);
const DURATION: Family = Family(
    "tollgate_mcp_call_duration_seconds",
    "From a call of a tool to the end of its answer.",
    &["server"],
);
const UP: Family = Family(
    "tollgate_mcp_server_up",
    "1 if the server answered when it was asked last, 0 if not.",
    &["server"],
);

pub const FAMILIES: [&Family; 3] = [&CALLS, &DURATION, &UP];

/// Tools of a server that are counted by name.
const MOST_TOOLS: usize = 500;
/// The label of the others; no tool has it on its own account alone.
const OTHERS: &str = "other";

/// One server.
pub struct McpMetrics {
    tools: Keep<Arc<str>, McpOutcomes>,
    duration: Histogram,
    is_up: AtomicBool,
}

impl McpMetrics {
    const fn new() -> Self {
        Self {
            tools: Keep::new(),
            duration: Histogram::new(&EXCHANGE),
            is_up: AtomicBool::new(true),
        }
    }

    /// `tool` is one that the server lists.
    pub fn called(&self, tool: &Arc<str>, outcome: McpOutcome, duration: Duration) {
        let counted = match self.tools.has(tool) || self.tools.count() < MOST_TOOLS {
            true => self.tools.get_or_make(tool, McpOutcomes::new),
            false => self.tools.get_or_make(&OTHERS.into(), McpOutcomes::new),
        };
        counted.record(outcome);
        self.duration.observe(duration);
    }

    pub fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Relaxed);
    }
}

pub struct Cells(Keep<Arc<str>, McpMetrics>);

impl Cells {
    pub const fn new() -> Self {
        Self(Keep::new())
    }

    pub fn server(&self, name: &str) -> Arc<McpMetrics> {
        self.0.get_or_make(&name.into(), McpMetrics::new)
    }

    pub fn sweep(&self) {
        self.0.sweep();
    }

    pub fn collect(&self) -> [MetricFamily; 3] {
        let (mut calls, mut durations, mut ups) = (vec![], vec![], vec![]);
        for (server, metrics) in self.0.all() {
            for (tool, outcomes) in metrics.tools.all() {
                calls.extend(outcomes.counts().filter(|it| it.1 > 0).map(|(labels, count)| {
                    counter(&CALLS, &[&[&*server, &*tool], labels].concat(), number(count))
                }));
            }
            durations.push(histogram(&DURATION, &[&server], &metrics.duration));
            ups.push(gauge(&UP, &[&server], metrics.is_up.load(Relaxed).into()));
        }
        [
            family(&CALLS, MetricType::COUNTER, calls),
            family(&DURATION, MetricType::HISTOGRAM, durations),
            family(&UP, MetricType::GAUGE, ups),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_makes_series_without_end() {
        let metrics = McpMetrics::new();
        for index in 0..1000 {
            let tool: Arc<str> = format!("t{index}").into();
            metrics.called(&tool, McpOutcome::Answered, Duration::ZERO);
        }
        assert_eq!(metrics.tools.count(), MOST_TOOLS + 1);
        assert!(metrics.tools.has("other") && metrics.tools.has("t0"));
    }
}
