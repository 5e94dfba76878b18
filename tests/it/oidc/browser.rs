//! A browser as far as logins go: cookies by name and path, navigations, scripts, and redirects that it
//! shows instead of following.
use std::collections::BTreeMap;

use crate::support::{Gateway, Request, Response, wait_until};

#[derive(Clone, Debug)]
pub struct Browser {
    /// By name: the value, and the path that it goes to.
    pub cookies: BTreeMap<String, (String, String)>,
    /// Sent with each request.
    pub headers: Vec<(String, String)>,
    pub host: Option<String>,
}

impl Browser {
    pub const fn new() -> Self {
        Self { cookies: BTreeMap::new(), headers: Vec::new(), host: None }
    }

    /// One that comes by https through a proxy in front.
    pub fn by_https(host: &str) -> Self {
        let proto = ("X-Forwarded-Proto".to_owned(), "https".to_owned());
        Self { headers: vec![proto], host: Some(host.to_owned()), ..Self::new() }
    }

    /// A click on a link, or a line in the address bar.
    #[track_caller]
    pub fn open(&mut self, gateway: &Gateway, target: &str) -> Response {
        let request = gateway.get(target).header("Accept", "text/html,*/*;q=0.8");
        self.send(request.header("Sec-Fetch-Mode", "navigate"), target)
    }

    /// A request of a script.
    #[track_caller]
    pub fn fetch(&mut self, gateway: &Gateway, target: &str) -> Response {
        self.send(gateway.get(target).header("Accept", "application/json"), target)
    }

    #[track_caller]
    pub fn send(&mut self, mut request: Request, target: &str) -> Response {
        if let Some(host) = &self.host {
            request = request.host(host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let line = self.line(target);
        if !line.is_empty() {
            request = request.header("Cookie", &line);
        }
        let response = request.send();
        self.keep(&response);
        response
    }

    /// The value of `Cookie` for a path.
    pub fn line(&self, target: &str) -> String {
        let sent = self.cookies.iter().filter(|(_, (_, path))| target.starts_with(path.as_str()));
        sent.map(|(name, (value, _))| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, response: &Response) {
        for line in response.headers.all("set-cookie") {
            let mut parts = line.split("; ");
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes: Vec<&str> = parts.collect();
            assert!(attributes.contains(&"HttpOnly"), "{line}");
            assert!(attributes.contains(&"SameSite=Lax"), "{line}");
            let path = attributes.iter().find_map(|it| it.strip_prefix("Path=")).unwrap();
            let is_prefixed = name.starts_with("__Host-") || name.starts_with("__Secure-");
            assert_eq!(attributes.contains(&"Secure"), is_prefixed, "{line}");
            assert!(!name.starts_with("__Host-") || path == "/", "{line}");
            assert!(!attributes.iter().any(|it| it.starts_with("Domain")), "{line}");
            assert!(name.len() + value.len() <= 4096, "{}", line.len());
            if attributes.contains(&"Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), (value.to_owned(), path.to_owned()));
            }
        }
    }

    /// Asks for `target` and is sent to the provider: where to.
    #[track_caller]
    pub fn sent(&mut self, gateway: &Gateway, target: &str) -> String {
        let response = self.open(gateway, target);
        assert_eq!(response.status, 302, "{response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        response.header("location").unwrap().to_owned()
    }

    /// Comes back from the provider at this URL.
    #[track_caller]
    pub fn come_back(&mut self, gateway: &Gateway, url: &str) -> Response {
        let at = url.find("/oauth/").unwrap_or_else(|| panic!("{url} is not the callback"));
        self.open(gateway, &url[at..])
    }

    /// The whole login, which ends at `target`.
    #[track_caller]
    pub fn log_in(
        &mut self,
        gateway: &Gateway,
        target: &str,
        provider: impl FnOnce(&str) -> String,
    ) {
        let back = provider(&self.sent(gateway, target));
        let response = self.come_back(gateway, &back);
        assert_eq!(response.status, 302, "{response:?}");
        assert_eq!(response.header("location"), Some(target), "{response:?}");
        assert_eq!(self.open(gateway, target).status, 200);
    }

    /// The values of the cookies whose name has this part.
    pub fn values(&self, part: &str) -> Vec<&str> {
        let found = self.cookies.iter().filter(|(name, _)| name.contains(part));
        found.map(|(_, (value, _))| value.as_str()).collect()
    }
}

/// The provider is asked in the background: waits until a login can begin.
#[track_caller]
pub fn wait_for_provider(gateway: &Gateway, target: &str) {
    let ask = || gateway.get(target).header("Accept", "text/html").status();
    wait_until("the gateway knows the provider", || ask() == 302);
}
