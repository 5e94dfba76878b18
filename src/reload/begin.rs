//! The first snapshot: the file, then the store that it names.
use std::{path::Path, sync::Arc};

use tokio::runtime::Handle;

use super::{Running, base_dir, compiled};
use crate::{
    config,
    gateway::{Gateway, Shared},
    reload::{follow::merge, usage::learn},
    store::{Config, Error, OnOutage, Rows, Store},
};

/// What a process starts with.
pub struct Begun {
    pub gateway: Gateway,
    pub running: Running,
    pub store: Option<Arc<Store>>,
}

/// Why there is no first snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Every problem of the configuration, rendered.
    #[error("{}", .0.join("\n"))]
    Configuration(Vec<String>),
    #[error("{location}: {why}{hint}")]
    Store { location: String, why: Error, hint: &'static str },
}

/// Compiles `file` with what its store holds. The store's connections are served by `background`.
///
/// # Errors
/// Problems of the file, also a clash with the store; or the store does not answer and `on_outage`
/// says that this matters.
pub fn begin(file: &Path, shared: &Shared, background: &Handle) -> Result<Begun, Failure> {
    let load = |stored: &Rows| {
        compiled(config::load(file), base_dir(file), stored, shared).map_err(Failure::Configuration)
    };
    // First alone: a file with problems is no reason to touch a store.
    let (mut gateway, mut loaded) = load(&Rows::default())?;
    let (mut store, mut rows) = (None, Rows::default());
    if let Some(config) = gateway.process.store.clone() {
        let (opened, read) = background.block_on(open(&config, shared))?;
        (store, rows) = (Some(Arc::new(opened)), read);
        (gateway, loaded) = load(&rows)?;
    }
    let running = Running { loaded: Arc::new(loaded), rows: Arc::new(rows) };
    let clashes: Vec<_> = gateway.left_out.iter().filter(|it| it.is_clash).collect();
    if !clashes.is_empty() {
        return Err(Failure::Configuration(running.explain(clashes)));
    }
    if !gateway.left_out.is_empty() {
        let why = running.explain(&gateway.left_out).join("\n");
        log::error!("consumers of the store that do not fit are left out\n{why}");
    }
    Ok(Begun { gateway, running, store })
}

async fn open(config: &Config, shared: &Shared) -> Result<(Store, Rows), Failure> {
    let failed = |why: Error| {
        let hint = match why {
            Error::Unreachable(_) => {
                "; with `store: {on_outage: start_without}` the gateway starts all the same"
            }
            _ => "",
        };
        Failure::Store { location: config.location.to_string(), why, hint }
    };
    if let Some(warning) = config.location.warning() {
        log::warn!("store: {warning}");
    }
    let store = Store::new(config.clone()).map_err(failed)?;
    shared.calls.turn_on();
    let read = async {
        let rows = store.load(&Rows::default()).await?;
        merge(&shared.last_uses, store.new_uses().await?);
        learn(shared, &store).await?;
        Ok(rows)
    };
    match read.await {
        Ok(rows) => Ok((store, rows)),
        Err(why @ Error::Unreachable(_)) if config.on_outage == OnOutage::StartWithout => {
            log::error!("{}: {why}; starting without the consumers in it", config.location);
            Ok((store, Rows::default()))
        }
        Err(why) => Err(failed(why)),
    }
}
