//! `tollgate explain`: what would happen to one request, offline from a file or as the running
//! process sees it.
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{AdminArguments, Outcome, status};
use crate::{
    admin::client::Client,
    flow::rejection::Code,
    gateway::Shared,
    proxy::explain::{self, Request},
    reload,
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The method, such as GET.
    method: String,
    /// The URL, such as http://api.example.com/orders?page=2.
    url: String,
    /// A header of the request, as `Name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The body of the request.
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    ip: std::net::IpAddr,
    /// A file with the client's certificate in PEM form, as if it came over TLS.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Ask the running process, with its counters; nothing is charged.
    #[arg(long)]
    live: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArguments,
}

/// What no file says: the keys and the endpoints of identity providers are fetched by whoever serves.
const OFFLINE: &str = "no identity provider is asked for its keys and endpoints offline, so this is what a \
    gateway says before it knows them; with --live the running process answers, which does";

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let certificate = match arguments.cert.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(certificate) => certificate,
        Err(why) => return Outcome::failure(2, format!("tollgate explain: --cert: {why}")),
    };
    let request = Request {
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: arguments.headers.clone(),
        body_bytes: arguments.data.as_ref().map(|data| data.len() as u64),
        ip: arguments.ip,
        certificate,
    };
    let explained = match &arguments.admin.access.config {
        Some(file) if !arguments.live => offline(file, &request),
        None if !arguments.live => {
            Err("name the configuration with -c FILE, or ask the running process with --live"
                .into())
        }
        _ => match arguments.admin.address() {
            Ok(address) => Client::new(&address, arguments.admin.token())
                .post("/api/explain", &serde_json::json!(request)),
            Err(outcome) => return outcome,
        },
    };
    let explained = match explained {
        Ok(explained) => explained,
        Err(why) => return Outcome::failure(2, format!("tollgate explain: {why}")),
    };
    let is_refused = explained.get("outcome").and_then(Value::as_str) == Some("refused");
    let out = if arguments.json { format!("{explained:#}") } else { status::outlined(&explained) };
    Outcome { out, code: if is_refused { 3 } else { 0 }, ..Outcome::default() }
}

fn offline(file: &Path, request: &Request) -> Result<Value, String> {
    let shared = Shared::new()?;
    let gateway = reload::compile_file(file, &shared).map_err(|problems| problems.join("\n"))?;
    let mut explained = explain::explain_blocking(&gateway, request)?;
    if explained.get("code").is_some_and(|it| it == Code::AuthenticatorUnavailable.word())
        && let Some(said) = explained.as_object_mut()
    {
        said.insert("note".to_owned(), Value::from(OFFLINE));
    }
    Ok(explained)
}
