//! `tollgate upgrade`: has another executable take over from a running process. Exits 0 only when that
//! serves; otherwise the running process goes on as it was, and the reasons are printed.
use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{AdminArguments, Outcome};
use crate::{admin::client::Client, value::duration};

/// The most that the process itself takes on top of two timeouts.
const MARGIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The executable; without it, the one that the running process was called as, as it is now.
    binary: Option<PathBuf>,
    /// For the check of the configuration, and again for the new process to be ready.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = seconds)]
    timeout: u64,
    #[command(flatten)]
    admin: AdminArguments,
}

fn seconds(text: &str) -> Result<u64, String> {
    let duration = duration::parse(text)?;
    match duration.as_secs() {
        seconds @ 1..=600 if duration.subsec_nanos() == 0 => Ok(seconds),
        _ => Err("whole seconds from 1s to 10m".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let address = match arguments.admin.address() {
        Ok(address) => address,
        Err(outcome) => return outcome,
    };
    let asked = match &arguments.binary {
        None => json!({"timeout_seconds": arguments.timeout}),
        Some(binary) => {
            // The running process may have been started elsewhere.
            let absolute = std::path::absolute(binary).ok();
            let Some(path) = absolute.as_ref().and_then(|it| it.to_str()) else {
                let binary = binary.display();
                return Outcome::failure(1, format!("not upgraded: {binary} is no path in UTF-8"));
            };
            json!({"timeout_seconds": arguments.timeout, "binary": path})
        }
    };
    let patience = Duration::from_secs(arguments.timeout) * 2 + MARGIN;
    let client = Client::with_patience(&address, arguments.admin.token(), patience);
    said(client.post("/api/upgrade", &asked))
}

fn said(answer: Result<Value, String>) -> Outcome {
    match answer {
        Ok(answer) => match answer.get("pid").and_then(Value::as_u64) {
            Some(pid) => Outcome::success(format!("upgraded: process {pid} serves")),
            None => Outcome::failure(1, "not known: the answer names no process; see the status"),
        },
        Err(why) => Outcome::failure(1, format!("not upgraded: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_zero_only_when_another_process_serves() {
        let check = |answer, code, out: &str, err: &str| {
            let outcome = said(answer);
            assert_eq!((outcome.code, &*outcome.out, &*outcome.err), (code, out, err));
        };
        check(Ok(json!({"pid": 7})), 0, "upgraded: process 7 serves", "");
        check(Err("no".into()), 1, "", "not upgraded: no");
        check(Ok(json!({})), 1, "", "not known: the answer names no process; see the status");
    }

    #[test]
    fn timeouts_are_whole_seconds() {
        let check = |text, expected| assert_eq!(seconds(text).ok(), expected, "{text}");
        check("5s", Some(5));
        check("10m", Some(600));
        check("11m", None);
        check("0s", None);
        check("1500ms", None);
        check("5", None);
    }
}
