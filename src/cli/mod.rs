//! The command line: one file a verb, and what they share.

pub mod cache;
pub mod check;
pub mod demo;
pub mod explain;
pub mod key;
pub mod logger;
pub mod reload;
pub mod run;
pub mod status;
pub mod stop;
pub mod upgrade;

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

use crate::{admin::client::Client, config::raw, value::secret::Secret};

/// What a verb came to: its text, where the text belongs, and the exit code.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    pub code: u8,
}

impl Outcome {
    #[must_use]
    pub fn success(out: impl Into<String>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    #[must_use]
    pub fn failure(code: u8, err: impl Into<String>) -> Self {
        Self { err: err.into(), code, ..Self::default() }
    }

    /// Writes the texts, each ending in a newline. A closed pipe is nobody's problem.
    pub fn print(&self) {
        for (text, out) in [
            (&self.out, &mut std::io::stdout() as &mut dyn Write),
            (&self.err, &mut std::io::stderr()),
        ] {
            if !text.is_empty() {
                let newline = if text.ends_with('\n') { "" } else { "\n" };
                let _ = write!(out, "{text}{newline}");
                let _ = out.flush();
            }
        }
    }
}

/// An API gateway on Pingora: authenticates, meters and routes every call.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Check the configuration and leave (the same as `check`).
    #[arg(short = 't', requires = "config")]
    test: bool,
    /// The configuration file, for `-t`.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run in the foreground; without -c the embedded demo.
    Run(run::Arguments),
    /// Check a configuration without side effects and report every problem at once.
    Check(check::Arguments),
    /// Say what would happen to one request.
    Explain(explain::Arguments),
    /// Apply the file of the running process.
    Reload(AdminArguments),
    /// Show the state of the running process.
    Status(StatusArguments),
    /// Stop the running process.
    Stop(StopArguments),
    /// Have another executable take over from the running process, without a failed request.
    Upgrade(upgrade::Arguments),
    /// The responses that a running process keeps.
    #[command(subcommand)]
    Cache(cache::Verb),
    /// Make, list, rotate, revoke and hash keys.
    #[command(subcommand)]
    Key(key::Verb),
}

/// How to reach a running process.
#[derive(Debug, Args)]
pub struct AdminArguments {
    /// Where its admin listener is. Without it, as the configuration of -c says, else as TOLLGATE_ADMIN
    /// in the environment, else 127.0.0.1:9900.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// The rest of what may be said about a running process.
#[derive(Debug, Args)]
pub struct Access {
    /// The configuration that says where its admin listener is, unless `--admin` does.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A token, where the admin API asks for one. Better in the environment than on the command line.
    #[arg(long, value_name = "TOKEN", env = "TOLLGATE_TOKEN", hide_env_values = true)]
    token: Option<Secret<String>>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE", value_parser = first_line, conflicts_with = "token")]
    token_file: Option<Secret<String>>,
}

/// What a file of one line holds.
fn first_line(file: &str) -> Result<Secret<String>, String> {
    const LONGEST: u64 = 4096;
    let mut text = String::new();
    let read = File::open(file).and_then(|it| it.take(LONGEST).read_to_string(&mut text));
    read.map_err(|why| why.to_string())?;
    Ok(Secret::new(text.trim_end().to_owned()))
}

impl AdminArguments {
    fn token(&self) -> Option<&str> {
        let given = self.access.token.as_ref().or(self.access.token_file.as_ref());
        given.map(|it| it.expose().as_str())
    }

    fn client(&self) -> Result<Client, Outcome> {
        Ok(Client::new(&self.address()?, self.token()))
    }

    fn address(&self) -> Result<String, Outcome> {
        const DEFAULT: &str = "127.0.0.1:9900";
        if let Some(admin) = &self.admin {
            return Ok(admin.clone());
        }
        let Some(config) = self.access.config()? else {
            let of_environment = std::env::var("TOLLGATE_ADMIN").ok().filter(|it| !it.is_empty());
            return Ok(of_environment.unwrap_or_else(|| DEFAULT.to_owned()));
        };
        let address = config.admin.and_then(|it| it.address);
        Ok(address.map_or_else(|| DEFAULT.to_owned(), |it| it.0))
    }

    /// Asks the running process.
    fn ask<O: Into<Outcome>>(&self, verb: fn(&str, Option<&str>) -> O) -> Outcome {
        match self.address() {
            Ok(address) => verb(&address, self.token()).into(),
            Err(outcome) => outcome,
        }
    }
}

impl Access {
    /// What the file says, if one is named.
    fn config(&self) -> Result<Option<raw::Config>, Outcome> {
        let Some(file) = &self.config else { return Ok(None) };
        // A file with problems is no hindrance to asking the process that runs without them.
        let config = match crate::config::load(file) {
            Ok(loaded) => Some(loaded.config),
            Err(failure) => failure.partial.map(|it| *it),
        };
        let unreadable = || Outcome::failure(1, format!("{} cannot be read", file.display()));
        config.map(Some).ok_or_else(unreadable)
    }
}

#[derive(Debug, Args)]
struct StatusArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StopArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Do not wait for requests in flight.
    #[arg(long)]
    fast: bool,
}

impl From<crate::admin::client::Outcome> for Outcome {
    fn from(it: crate::admin::client::Outcome) -> Self {
        match it.code {
            0 => Self::success(it.text),
            code => Self::failure(code, it.text),
        }
    }
}

/// Parses the command line and does what it says. Usage errors are printed by clap, with code 2.
#[must_use]
pub fn main() -> Outcome {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() { 2 } else { 0 };
            return Outcome { code, ..Outcome::default() };
        }
    };
    match cli.verb {
        None if cli.test => check::run(&check::Arguments::of(cli.config.unwrap_or_default())),
        None => run::run(run::Arguments::of(cli.config)),
        Some(Verb::Run(arguments)) => run::run(arguments),
        Some(Verb::Check(arguments)) => check::run(&arguments),
        Some(Verb::Explain(arguments)) => explain::run(&arguments),
        Some(Verb::Reload(it)) => it.ask(reload::reload),
        Some(Verb::Status(it)) => it.admin.ask(if it.json { status::json } else { status::status }),
        Some(Verb::Stop(it)) => it.admin.ask(if it.fast { stop::fast } else { stop::gracefully }),
        Some(Verb::Upgrade(it)) => upgrade::run(&it),
        Some(Verb::Cache(verb)) => cache::run(&verb),
        Some(Verb::Key(verb)) => key::run(verb),
    }
}
