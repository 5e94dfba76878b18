//! Planted secrets: whatever is done with them, no sink of the gateway may show ten characters of one.
mod clients;
mod configuration;
mod others;
mod tokens;
mod vault;

use vault::Vault;

use crate::support::{Gateway, Response, Upstream, run_tollgate};

/// What a gateway has said in all places where it says something.
struct Sinks(Vec<(String, Vec<u8>)>);

impl Sinks {
    /// What it has printed, logged and stored, all pages of its admin listener, and the verbs that
    /// ask it. The configuration itself is not a sink.
    fn of(gateway: &Gateway, token: &str) -> Self {
        let mut sinks = Self(Vec::new());
        for path in ["/", "/healthz", "/metrics", "/status", "/nothing"] {
            let bearer = format!("Bearer {token}");
            let answer = gateway.admin("GET", path).header("Authorization", &bearer).send();
            sinks.answer(&format!("GET {path}"), &answer);
        }
        let config = gateway.config_file().display().to_string();
        let admin = gateway.admin.to_string();
        for arguments in [
            &["check", "-c", &config][..],
            &["check", "-c", &config, "--print"],
            &["status", "--admin", &admin, "--token", token],
            &["status", "--admin", &admin, "--token", token, "--json"],
        ] {
            sinks.command(gateway, arguments);
        }
        sinks.files(gateway);
        sinks
    }

    fn answer(&mut self, what: &str, answer: &Response) {
        self.0.push((what.to_owned(), shown(answer)));
    }

    fn command(&mut self, gateway: &Gateway, arguments: &[&str]) {
        let said = run_tollgate(&gateway.path(""), arguments).said();
        self.0.push((arguments.join(" "), said.into_bytes()));
    }

    /// All that lies in the folder of the gateway but what the test has put there.
    fn files(&mut self, gateway: &Gateway) {
        let mut folders = vec![gateway.path("")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if !name.starts_with("tollgate.yaml") && !name.starts_with("given") {
                    self.0.push((name, std::fs::read(path).unwrap()));
                }
            }
        }
    }

    /// All that has reached an upstream.
    fn upstream(&mut self, upstream: &Upstream) {
        for request in upstream.requests() {
            self.0.push((format!("upstream {}", request.target), request.raw));
        }
    }

    #[track_caller]
    fn assert_none_of(&self, vault: &Vault) {
        let leaks: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, bytes)| {
                let found = vault.found(bytes);
                (!found.is_empty()).then(|| format!("{name} shows {}", found.join(", ")))
            })
            .collect();
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    }

    /// That what was to be searched was there at all.
    #[track_caller]
    fn assert_has(&self, names: &[&str]) {
        for name in names {
            let is_there = self.0.iter().any(|(it, bytes)| it.contains(name) && !bytes.is_empty());
            assert!(is_there, "nothing was read of {name}");
        }
    }
}

/// An answer with all that a client sees of it.
fn shown(answer: &Response) -> Vec<u8> {
    let mut bytes = format!("{} {:?}\n", answer.status, answer.headers).into_bytes();
    bytes.extend_from_slice(&answer.body);
    bytes
}
