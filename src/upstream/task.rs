//! The background work of one upstream: checks and names. It ends with its guard, so that a new
//! snapshot brings its own.
use std::sync::Arc;

use tokio::{runtime::Handle, task::JoinSet};

use super::{Upstream, discover, health};
use crate::shared::background::TaskGuard;

/// Starts resolving and checking, both at once.
pub fn spawn(upstream: &Upstream, handle: &Handle) -> TaskGuard {
    let name = Arc::clone(&upstream.spec().name);
    let endpoints = Arc::clone(upstream.endpoints());
    let health = upstream.spec().health.clone();
    let work = async move {
        // Dropped with this task, and its members with it.
        let mut members = JoinSet::new();
        if let Some(rule) = health {
            for endpoint in endpoints.iter() {
                let endpoint = Arc::clone(endpoint);
                members.spawn(health::watch(Arc::clone(&name), endpoint, rule.clone()));
            }
        }
        members.spawn(discover::watch(endpoints));
        while members.join_next().await.is_some() {}
    };
    TaskGuard::spawn(handle, work)
}
