//! Signals: HUP reload, USR1 reopen the log, USR2 upgrade, TERM and QUIT graceful stop, INT fast stop.
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Process;

pub(super) async fn handle(process: Arc<Process>) {
    let listen = |kind| {
        signal(kind).map_err(|why| log::error!("signal {kind:?} cannot be listened to: {why}")).ok()
    };
    let mut hangup = listen(SignalKind::hangup());
    let mut user1 = listen(SignalKind::user_defined1());
    let mut user2 = listen(SignalKind::user_defined2());
    let mut terminate = listen(SignalKind::terminate());
    let mut quit = listen(SignalKind::quit());
    let mut interrupt = listen(SignalKind::interrupt());
    loop {
        tokio::select! {
            () = next(&mut hangup) => {
                let reloader = process.reloader.clone();
                // Awaited: signals that come meanwhile fold into one.
                let _ = tokio::task::spawn_blocking(move || reloader.reload("SIGHUP")).await;
            }
            () = next(&mut user1) => {
                if let Err(why) = process.access_log.reopen() {
                    log::error!("the access log cannot be reopened and goes on where it was: {why}");
                }
            }
            () = next(&mut user2) => {
                log::error!("SIGUSR2: this build cannot upgrade itself; restart it instead");
            }
            () = next(&mut terminate) => process.stop(false),
            () = next(&mut quit) => process.stop(false),
            () = next(&mut interrupt) => process.stop(true),
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
