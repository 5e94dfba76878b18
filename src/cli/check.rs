//! `tollgate check`: every problem at once, and no side effects.
use std::path::{Path, PathBuf};

use clap::Args;

use super::Outcome;
use crate::{
    config,
    diagnostic::{self, Diagnostic},
    gateway::{Gateway, Shared, tls::Warning},
    reload,
};

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
        Ok(gateway) => Outcome {
            err: warnings(&arguments.config, &gateway),
            ..Outcome::success(format!(
                "{}: ok, revision {}, {} routes, {} consumers, {} upstreams",
                arguments.config.display(),
                gateway.revision,
                gateway.routes.len(),
                gateway.consumers.len(),
                gateway.upstreams.len() - gateway.providers.len(),
            ))
        },
    }
}

/// What works and should not stay so, each with its place in the file.
fn warnings(file: &Path, gateway: &Gateway) -> String {
    let warnings = gateway.tls.iter().flatten().flat_map(|tls| tls.warnings());
    let diagnostic = |it: Warning| Diagnostic {
        path: it.place,
        at: None,
        message: format!("warning: {}", it.message),
        hint: None,
    };
    let warnings: Vec<Diagnostic> = warnings.map(diagnostic).collect();
    if warnings.is_empty() {
        return String::new();
    }
    config::load(file)
        .map_or_else(|_| String::new(), |it| diagnostic::render(&warnings, &it.source))
}
