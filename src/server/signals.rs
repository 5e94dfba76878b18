//! Signals: HUP reload, USR1 reopen the log, USR2 upgrade, TERM and QUIT graceful stop, INT fast stop.
use std::sync::Arc;

use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Process, systemd,
    upgrade::{self, Ask},
};

/// What the process listens to. From the moment that this is made no signal of them ends it.
pub(super) struct Signals {
    hangup: Option<Signal>,
    user1: Option<Signal>,
    user2: Option<Signal>,
    terminate: Option<Signal>,
    quit: Option<Signal>,
    interrupt: Option<Signal>,
}

pub(super) fn listen(runtime: &Handle) -> Signals {
    let _entered = runtime.enter();
    let listen = |kind| {
        signal(kind).map_err(|why| log::error!("signal {kind:?} cannot be listened to: {why}")).ok()
    };
    Signals {
        hangup: listen(SignalKind::hangup()),
        user1: listen(SignalKind::user_defined1()),
        user2: listen(SignalKind::user_defined2()),
        terminate: listen(SignalKind::terminate()),
        quit: listen(SignalKind::quit()),
        interrupt: listen(SignalKind::interrupt()),
    }
}

impl Signals {
    pub(super) async fn handle(self, process: Arc<Process>) {
        let Self { mut hangup, mut user1, mut user2, mut terminate, mut quit, mut interrupt } =
            self;
        loop {
            tokio::select! {
                () = next(&mut hangup) => {
                    let reloaded = process.clone();
                    // Awaited: signals that come meanwhile fold into one.
                    let _ = tokio::task::spawn_blocking(move || reload(&reloaded)).await;
                }
                () = next(&mut user1) => {
                    if let Err(why) = process.access_log.reopen() {
                        log::error!("the access log cannot be reopened and goes on where it was: {why}");
                    }
                }
                () = next(&mut user2) => {
                    let upgraded = process.clone();
                    // Not awaited: a stop ends it, and a second one is refused. It logs how it ends.
                    tokio::task::spawn_blocking(move || upgrade::upgrade(&upgraded, &Ask::by_signal()));
                }
                () = next(&mut terminate) => process.stop(false),
                () = next(&mut quit) => process.stop(false),
                () = next(&mut interrupt) => process.stop(true),
            }
        }
    }
}

/// The service manager waits for the end of what it asked for, whichever.
fn reload(process: &Process) {
    if !process.is_ready() {
        // Nobody is told that it is before it is.
        let _ = process.reloader.reload("SIGHUP");
        return;
    }
    process.notifier.reloading();
    let _ = process.reloader.reload("SIGHUP");
    process.notifier.ready(&systemd::status(process));
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
