//! `tollgate check`: every problem at once, and no side effects.
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::{config, gateway::Shared, reload};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Show the configuration as it is in effect, with secrets masked.
    #[arg(long)]
    print: bool,
}

impl Arguments {
    pub(super) fn of(config: PathBuf) -> Self {
        Self { config, print: false }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let shared = match Shared::new() {
        Ok(shared) => shared,
        Err(why) => return Outcome::failure(1, why),
    };
    match reload::compile_file(&arguments.config, &shared) {
        Err(problems) => {
            let count = match problems.len() {
                1 => "1 problem".to_owned(),
                count => format!("{count} problems"),
            };
            Outcome::failure(2, format!("{}\n{count}", problems.join("\n")))
        }
        Ok(_) if arguments.print => match config::load(&arguments.config) {
            Ok(loaded) => Outcome::success(config::effective(&loaded.source)),
            Err(_) => Outcome::failure(2, "the file changed meanwhile"),
        },
        Ok(gateway) => Outcome::success(format!(
            "{}: ok, revision {}, {} routes, {} consumers, {} upstreams",
            arguments.config.display(),
            gateway.revision,
            gateway.routes.len(),
            gateway.consumers.len(),
            gateway.upstreams.len(),
        )),
    }
}
