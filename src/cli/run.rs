//! `tollgate run`: in the foreground, until it is told to stop.
use std::path::PathBuf;

use clap::Args;

use super::{Outcome, demo, logger};
use crate::{
    reload,
    server::{self, Failure},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration file; without it, the embedded demo runs.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not apply changes of the file by themselves.
    #[arg(long)]
    no_watch: bool,
    /// Take over from the process that has started this one, see `upgrade`.
    #[arg(long, hide = true, requires = "config")]
    take_over: bool,
}

impl Arguments {
    pub(super) const fn of(config: Option<PathBuf>) -> Self {
        Self { config, no_watch: false, take_over: false }
    }
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    logger::init();
    let Some(config) = arguments.config else { return demo::run() };
    let options = server::Options {
        config,
        is_watching: !arguments.no_watch,
        program: server::upgrade::program::of_this_process(),
        is_taking_over: arguments.take_over,
    };
    outcome(server::run(&options, |_| {}))
}

pub(super) fn outcome(result: Result<(), Failure>) -> Outcome {
    match result {
        Ok(()) => Outcome::default(),
        Err(Failure::Begin(failure @ reload::Failure::Configuration(_))) => {
            Outcome::failure(2, failure.to_string())
        }
        Err(failure) => Outcome::failure(1, format!("tollgate: {failure}")),
    }
}
