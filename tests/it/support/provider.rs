//! A real authorization server: npm `oidc-provider`, one process a test, on a free port. Where Node.js
//! or the packages are not to be had, `start` says `skipped: …` on the terminal and is `None`.
//!
//! | there is | |
//! |---|---|
//! | clients, secret `NAME-secret` | `service`, `stranger` (client credentials; scopes `orders:read`, `orders:write`), `gateway` (introspects), `gateway-post` (the same, by `client_secret_post`, secret `gateway-secret`), `portal` (authorization code with PKCE, refresh with `offline_access`; any redirect URI on loopback) |
//! | resources | any absolute URI. `…/opaque` has opaque tokens, `…/es256` and `…/eddsa` JWTs signed so, all others RS256 (RFC 9068) |
//! | accounts | any name: `NAME@example.com`, groups `staff` and `NAME`, scopes `openid email groups` |
//! | login | nobody types: whoever [`Provider::set_login`] names is logged in by redirects alone |
//! | keys | `NAME` (RSA), `NAME-ec`, `NAME-ed` for each of [`Provider::set_keys`]; `first` at the start |
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

use super::{Request, Response, basic_header, free_address, secrets::hex};

const SCRIPT: &str = include_str!("../../provider/provider.mjs");
const PACKAGES: [(&str, &str); 3] = [
    ("package.json", include_str!("../../provider/package.json")),
    ("package-lock.json", include_str!("../../provider/package-lock.json")),
    (".npmrc", include_str!("../../provider/.npmrc")),
];

/// A running authorization server; ends when dropped.
#[derive(Debug)]
pub struct Provider {
    child: Child,
    pub address: SocketAddr,
}

impl Provider {
    /// Starts it, with its packages installed before the first. `None` where that cannot be.
    pub fn start() -> Option<Self> {
        static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        match FOLDER.get_or_init(install) {
            Ok(folder) => Some(Self::start_in(folder)),
            Err(why) => {
                // The test harness swallows what the macros print.
                let line = format!("skipped: no authorization server: {why}\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
                None
            }
        }
    }

    fn start_in(folder: &Path) -> Self {
        let address = free_address();
        let mut child = Command::new("node")
            .args(["--input-type=module", "-", &address.port().to_string()])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(SCRIPT.as_bytes()).unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let provider = Self { child, address };
        assert_eq!(
            said.trim(),
            "ready",
            "`node --input-type=module - PORT <tests/provider/provider.mjs` says why"
        );
        provider
    }

    /// `http://127.0.0.1:PORT`; endpoints: `/token`, `/token/introspection`, `/jwks`, `/auth`, `/me`,
    /// `/session/end`, `/.well-known/openid-configuration`.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer())
    }

    /// An access token by client credentials, for the `client` whose secret is `CLIENT-secret`.
    #[track_caller]
    pub fn token(&self, client: &str, resource: &str, scope: &str) -> String {
        let form = format!("grant_type=client_credentials&resource={resource}&scope={scope}");
        let response = self.post("/token", client, &form);
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Ends an opaque token before its time.
    #[track_caller]
    pub fn revoke(&self, client: &str, token: &str) {
        let response = self.post("/token/revocation", client, &format!("token={token}"));
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// A form to one of the endpoints, as `client`.
    #[track_caller]
    pub fn post(&self, path: &str, client: &str, form: &str) -> Response {
        Request::new(self.address, "POST", path)
            .header("Authorization", &basic_header(client, &format!("{client}-secret")))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
    }

    /// Publishes these keys from now on; the first signs.
    #[track_caller]
    pub fn set_keys(&self, names: &[&str]) {
        self.control(&format!("keys?names={}", names.join(",")));
    }

    /// `up`, `error` (answers 500) or `hang` (never answers).
    #[track_caller]
    pub fn set_mode(&self, mode: &str) {
        self.control(&format!("mode?mode={mode}"));
    }

    /// Of tokens from now on; 600 at the start.
    #[track_caller]
    pub fn set_lifetime(&self, seconds: u64) {
        self.control(&format!("lifetime?seconds={seconds}"));
    }

    /// Who is logged in by the next flow; `alice` at the start, empty: the login is refused.
    #[track_caller]
    pub fn set_login(&self, account: &str) {
        self.control(&format!("login?account={account}"));
    }

    /// Requests to `path` so far, whatever became of them.
    #[track_caller]
    pub fn count(&self, path: &str) -> u64 {
        self.control("counts").json()[path].as_u64().unwrap_or(0)
    }

    /// Follows a browser that was sent to `url` from redirect to redirect, and gives the first URL that
    /// is not the provider's: the client's callback with its code and state.
    #[track_caller]
    pub fn follow(&self, visitor: &mut Visitor, url: &str) -> String {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let Some(target) = url.strip_prefix(&self.issuer()) else { return url };
            let request = Request::new(self.address, "GET", target);
            let response = request.header("Cookie", &visitor.cookies()).send();
            visitor.keep(&response);
            let Some(location) = response.header("location") else { panic!("{url}: {response:?}") };
            url = if location.starts_with('/') { self.url(location) } else { location.to_owned() };
        }
        panic!("too many redirects, the last to {url}");
    }

    #[track_caller]
    fn control(&self, command: &str) -> Response {
        let response = Request::new(self.address, "POST", &format!("/control/{command}")).send();
        assert_eq!(response.status, 200, "{response:?}");
        response
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser as far as cookies go: one for all paths of one host.
#[derive(Debug, Default)]
pub struct Visitor(BTreeMap<String, String>);

impl Visitor {
    /// The value of `Cookie`.
    pub fn cookies(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Takes over what an answer sets; an empty value is a cookie that is taken back.
    pub fn keep(&mut self, response: &Response) {
        for line in response.headers.all("set-cookie") {
            let pair = line.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// The folder with the packages, made once for each lock file: `target/provider/HASH`.
fn install() -> Result<PathBuf, String> {
    let run = |command: &mut Command| match command.output() {
        Err(why) => Err(format!("{:?}: {why}", command.get_program())),
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("it failed");
            Err(format!("{:?}: {first}", command.get_program()))
        }
    };
    let version = run(Command::new("node").arg("--version"))?;
    let major = version.trim().trim_start_matches('v').split('.').next();
    if major.and_then(|it| it.parse::<u32>().ok()).is_none_or(|it| it < 20) {
        return Err(format!("node {} is older than 20", version.trim()));
    }
    let all: String = PACKAGES.iter().map(|(_, text)| *text).collect();
    let hash = &hex(&Sha256::digest(all.as_bytes()))[..16];
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("provider");
    let folder = parent.join(hash);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&parent).map_err(|why| why.to_string())?;
    // Whole or not at all, even when two runs of the tests install at the same time.
    let new = tempfile::tempdir_in(&parent).map_err(|why| why.to_string())?;
    for (name, text) in PACKAGES {
        fs::write(new.path().join(name), text).map_err(|why| why.to_string())?;
    }
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    run(Command::new("npm").args(arguments).current_dir(new.path()))?;
    match fs::rename(new.path(), &folder) {
        Err(why) if !folder.exists() => Err(why.to_string()),
        _ => Ok(folder),
    }
}
