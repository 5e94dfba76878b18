//! What is written down of a call: who asked what of whom, and what came of it.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::value::RawValue;

use super::{call::print, target::Target};
use crate::{
    gateway::mcp::Server,
    telemetry::{McpOutcome, access_log::Mcp},
};

pub struct Meter {
    method: Box<str>,
    server: Arc<Server>,
    /// The server's own name for what was asked.
    target: Arc<str>,
    is_tool: bool,
    arguments: [u8; 8],
    outcome: McpOutcome,
    started: Instant,
    duration: Duration,
}

impl Meter {
    pub fn new(target: &Target, method: &str, arguments: Option<&RawValue>) -> Self {
        Self {
            method: method.into(),
            server: target.server.clone(),
            target: target.own.clone(),
            is_tool: target.canonical.is_some(),
            arguments: print(arguments),
            outcome: McpOutcome::ClientGone,
            started: Instant::now(),
            duration: Duration::ZERO,
        }
    }

    pub fn end(&mut self, outcome: McpOutcome) {
        self.outcome = outcome;
        self.duration = self.started.elapsed();
        if self.is_tool {
            self.server.metrics.called(&self.target, outcome, self.duration);
        }
    }

    /// For the access log.
    #[must_use]
    pub fn told(&self) -> Mcp<'_> {
        Mcp {
            method: &self.method,
            server: &self.server.name,
            target: &self.target,
            arguments: self.is_tool.then_some(self.arguments),
            result: self.outcome.word(),
        }
    }
}
