//! The new process's part of an upgrade: it takes the sockets that it still needs, is told what the
//! limits have counted, says when it serves, and hears of the old process until that has left.
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Last,
    channel::{Broken, Channel, Frame, Hello, PROTOCOL, Patience},
};
use crate::{
    flow::clock::Now,
    gateway::Shared,
    limit::{Seeds, handover::Debt},
    server::{
        Failure,
        listen::{Listening, SocketFile},
    },
    telemetry::metrics::UpgradeResult,
    value::{address::Address, secret::Secret},
};

/// For the old process to introduce itself, which it does at once, and to let go.
const PATIENCE: Duration = Duration::from_secs(10);

fn within(patience: Duration) -> Patience<'static> {
    Patience { until: Some(Instant::now() + patience), is_called_off: &|| false }
}

/// The process that serves now.
pub struct Predecessor {
    channel: Channel,
    hello: Hello,
    sockets: Vec<(Address, Listening)>,
    /// Of sockets that the old process listens on and this one does not.
    files: Vec<SocketFile>,
    /// Whether what it counts by keys can be told to this process.
    has_same_keys: bool,
}

impl Predecessor {
    /// To be called before anything else: the keys of limits are made as the old process made them.
    ///
    /// # Errors
    /// Nobody hands over, or one that speaks otherwise.
    pub fn meet() -> Result<Self, Failure> {
        let failed = |why: String| Failure::TakeOver(why);
        let channel = Channel::of_stdin();
        let mut channel = channel.map_err(|_| {
            failed("`--take-over` is for `tollgate upgrade`: no process hands over".to_owned())
        })?;
        let said = |why: Broken| Failure::TakeOver(why.to_string());
        let Frame::Hello(hello) = channel.receive(&within(PATIENCE)).map_err(said)? else {
            return Err(said(Broken::Unknown));
        };
        if hello.protocol != PROTOCOL {
            let other = hello.protocol;
            let why = format!("it is handed over by protocol {other}, and speaks {PROTOCOL}");
            let _ = channel.send(&Frame::Failed(why.clone()));
            return Err(failed(why));
        }
        let mut sockets = Vec::new();
        for address in hello.listeners.iter().chain([&hello.admin]) {
            let socket = channel.receive_socket(&within(PATIENCE)).map_err(said)?;
            let address: Address = address.parse().map_err(failed)?;
            let socket = Listening::adopt(&address, socket);
            sockets.push((address, socket));
        }
        let has_same_keys = Seeds(hello.seeds).adopt() && Seeds::probe() == hello.probe;
        Ok(Self { channel, hello: *hello, sockets, files: Vec::new(), has_same_keys })
    }

    /// The socket that listens on this address, if the old process listens there.
    pub fn take(&mut self, address: &Address) -> Option<Listening> {
        let at = self.sockets.iter().position(|(its, _)| its == address)?;
        Some(self.sockets.swap_remove(at).1)
    }

    /// What this process shares with the one before.
    pub fn own_secret(&self) -> Secret<[u8; 32]> {
        Secret::new(self.hello.own_secret)
    }

    /// Says that this process could serve, but for what it lacks, and waits until it shall.
    ///
    /// # Errors
    /// The old process is gone: whoever looks after it starts anew, and would find the ports taken. Or
    /// this one was told to stop.
    pub fn wait_for_go(
        &mut self,
        lacks: Vec<String>,
        shared: &Shared,
        is_called_off: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        // What was not taken is for the old process alone, until it leaves.
        self.files = self.sockets.drain(..).filter_map(|it| SocketFile::of(&it.0)).collect();
        let gone = |why: Broken| Failure::TakeOver(why.to_string());
        self.channel.send(&Frame::Prepared(lacks)).map_err(|why| gone(why.into()))?;
        let has_same_keys = self.has_same_keys && self.hello.shards == shared.limits.shards();
        if !has_same_keys {
            log::warn!("the old process counts rate limits in another way: they begin anew");
        }
        self.has_same_keys = has_same_keys;
        let patience = Patience { until: None, is_called_off };
        loop {
            match self.channel.receive(&patience).map_err(gone)? {
                Frame::Debts(debts) => add(shared, self.has_same_keys, &debts),
                Frame::Counts(counts) => shared.quotas.add(&counts, Now::read().unix.as_secs()),
                Frame::Go => return Ok(()),
                _ => return Err(gone(Broken::Unknown)),
            }
        }
    }

    /// Says why there will be no new process.
    pub fn fail(&mut self, why: &Failure) {
        let _ = self.channel.send(&Frame::Failed(why.to_string()));
    }

    /// Says that this process serves, and waits until the old one accepts no more: for who looks after
    /// the service, it is this process's only then.
    pub fn finish(mut self, shared: Arc<Shared>) -> Last {
        let mut upgrades = self.hello.upgrades;
        if let Some(successes) = upgrades.get_mut(UpgradeResult::Success as usize) {
            *successes += 1;
        }
        shared.metrics.lifecycle.set_upgrades(upgrades);
        let is_told = self.channel.send(&Frame::Ready).is_ok();
        // Without that word it is gone all the same.
        if is_told && !matches!(self.channel.receive(&within(PATIENCE)), Ok(Frame::Yours)) {
            log::warn!("the old process did not say that it leaves");
        }
        self.files.drain(..).for_each(|it| it.set_ours(true));
        let pid = self.hello.pid;
        let listening = move || self.listen(&shared);
        let thread = thread::Builder::new().name("predecessor".to_owned()).spawn(listening);
        if let Err(why) = thread {
            log::error!("what the old process still counts is not heard of: {why}");
        }
        log::info!("took over from process {pid}");
        Last { at: SystemTime::now(), cause: "took over".to_owned(), outcome: Ok(pid) }
    }

    /// Until the old process has left.
    fn listen(mut self, shared: &Shared) {
        let patience = Patience { until: None, is_called_off: &|| false };
        loop {
            match self.channel.receive(&patience) {
                Ok(Frame::Debts(debts)) => add(shared, self.has_same_keys, &debts),
                Ok(Frame::Counts(counts)) => shared.quotas.add(&counts, Now::read().unix.as_secs()),
                Ok(Frame::Cut(connections)) => {
                    shared.metrics.lifecycle.streams_cut().inc_by(connections)
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        log::info!("process {} has left", self.hello.pid);
    }
}

fn add(shared: &Shared, has_same_keys: bool, debts: &[Debt]) {
    if has_same_keys {
        let now = Now::read().nanos();
        debts.iter().for_each(|debt| shared.limits.add(debt, now));
    }
}
