//! One login under way in one tab: what must come back from the provider (state, nonce), what proves
//! that we began it (the PKCE verifier, RFC 7636), and where the browser wants to go. It stands sealed
//! in a cookie of its own, so that several tabs log in side by side and nobody else's answer fits.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    cookie::{Jar, Seconds},
    target,
};
use crate::{
    shared::seal::{Failure, Sealer},
    value::secret::Secret,
};

/// How long a user may take at the provider.
pub const LIFE: Seconds = Seconds(600);
/// Logins that one browser may have under way beside a new one; beyond, the oldest is forgotten.
const MOST: usize = 4;
/// Flow cookies of a request that are looked at.
const LOOKED_AT: usize = 32;
const PURPOSE: &str = "oidc flow";
const SUFFIX: &str = ".flow.";
/// Characters of the state that name its cookie.
const ID: usize = 16;

/// A random word of 256 bits.
///
/// # Errors
/// The system has no randomness.
fn word() -> Result<String, Failure> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| Failure::NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A login under way. No `Debug`: all of it is secret.
#[derive(Deserialize, Serialize)]
pub struct Flow {
    pub state: String,
    pub nonce: String,
    pub verifier: String,
    /// Where the browser goes when it is done; checked by [`target::safe`] again when it is used.
    target: String,
    /// What the provider was told, and must be told again with the code.
    pub redirect_uri: String,
    /// Seconds since the epoch.
    begun: u64,
}

/// Why an answer of the provider belongs to no login of this browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("this browser has no login under way with this state")]
    Unknown,
    #[error("the cookie of the login is not ours, or was changed")]
    Broken,
    #[error("the login was begun more than {} s ago", LIFE.0)]
    TooOld,
}

/// Whose flows these are.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub sealer: &'a Sealer,
    pub context: &'a [u8],
    pub jar: Jar<'a>,
}

impl Flow {
    /// `target` is the target of the request that asked for a login; one that is not safe to go back
    /// to becomes `/`.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn begin(target: &str, redirect_uri: String, unix: u64) -> Result<Self, Failure> {
        Ok(Self {
            state: word()?,
            nonce: word()?,
            verifier: word()?,
            target: target::safe(target).unwrap_or("/").to_owned(),
            redirect_uri,
            begun: unix,
        })
    }

    #[must_use]
    pub fn target(&self) -> &str {
        target::safe(&self.target).unwrap_or("/")
    }

    /// The verifier as the provider is shown it first (RFC 7636 section 4.2).
    #[must_use]
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier))
    }

    fn suffix(state: &str) -> Option<String> {
        let id = state.get(..ID)?;
        is_word(id).then(|| format!("{SUFFIX}{id}"))
    }

    /// `Set-Cookie` lines: the new login, and those of `headers` that are over or one too many.
    ///
    /// # Errors
    /// The system's cryptography fails.
    pub fn keep(
        &self,
        owner: Owner<'_>,
        headers: &HeaderMap,
        unix: u64,
    ) -> Result<Vec<HeaderValue>, Failure> {
        let text = serde_json::to_vec(self).map_err(|_| Failure::Cipher)?;
        let suffix = Self::suffix(&self.state).ok_or(Failure::Cipher)?;
        let context = context(owner, &suffix);
        let sealed = owner.sealer.seal(PURPOSE, &context, &text)?;
        let mut lines: Vec<_> = owner.jar.set(&suffix, &sealed, LIFE).into_iter().collect();
        lines.extend(crowded(owner, headers, unix));
        Ok(lines)
    }

    /// The login that `state` answers, out of the browser's own cookie for it.
    ///
    /// # Errors
    /// There is none; see [`Lost`].
    pub fn find(
        owner: Owner<'_>,
        headers: &HeaderMap,
        state: &str,
        unix: u64,
    ) -> Result<Self, Lost> {
        let suffix = Self::suffix(state).ok_or(Lost::Unknown)?;
        let sealed = owner.jar.find(headers, &suffix).ok_or(Lost::Unknown)?;
        let flow = open(owner, &suffix, sealed).ok_or(Lost::Broken)?;
        if !Secret::new(&flow.state).matches(state.as_bytes()) {
            return Err(Lost::Unknown);
        }
        if flow.is_over(unix) {
            return Err(Lost::TooOld);
        }
        Ok(flow)
    }

    /// `Set-Cookie` that ends the login of `state`.
    #[must_use]
    pub fn forget(jar: Jar<'_>, state: &str) -> Option<HeaderValue> {
        jar.clear(&Self::suffix(state)?)
    }

    const fn is_over(&self, unix: u64) -> bool {
        unix >= self.begun.saturating_add(LIFE.0)
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
}

/// Bound to its cookie, so that it cannot be passed off as another login.
fn context(owner: Owner<'_>, suffix: &str) -> Vec<u8> {
    [suffix.as_bytes(), b"\0", owner.context].concat()
}

fn open(owner: Owner<'_>, suffix: &str, sealed: &str) -> Option<Flow> {
    let text = owner.sealer.open(PURPOSE, &context(owner, suffix), sealed)?;
    serde_json::from_slice(&text).ok()
}

/// Takes back what is over, is not ours, or would be one login too many.
fn crowded(owner: Owner<'_>, headers: &HeaderMap, unix: u64) -> Vec<HeaderValue> {
    let (mut running, mut over) = (Vec::new(), Vec::new());
    for (id, sealed) in owner.jar.all(headers, SUFFIX).take(LOOKED_AT) {
        if id.len() != ID || !is_word(id) {
            continue;
        }
        let suffix = format!("{SUFFIX}{id}");
        match open(owner, &suffix, sealed).filter(|it| !it.is_over(unix)) {
            Some(flow) => running.push((flow.begun, suffix)),
            None => over.push(suffix),
        }
    }
    running.sort_unstable();
    running.truncate(running.len().saturating_sub(MOST));
    over.extend(running.into_iter().map(|(_, suffix)| suffix));
    over.iter().filter_map(|suffix| owner.jar.clear(suffix)).collect()
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::auth::oidc::cookie::Base;

    const NOW: u64 = 1_800_000_000;
    const REDIRECT: &str = "https://portal.test/oauth/callback";

    /// A browser that keeps what it is told to, and an authenticator.
    struct Scene {
        sealer: Sealer,
        base: Base,
        context: &'static [u8],
        cookies: Vec<(String, String)>,
    }

    impl Scene {
        fn new() -> Self {
            let (sealer, base) = (Sealer::random().unwrap(), Base::of("staff"));
            Self { sealer, base, context: b"staff", cookies: Vec::new() }
        }

        fn owner(&self) -> Owner<'_> {
            let jar = Jar { base: &self.base, is_secure: true };
            Owner { sealer: &self.sealer, context: self.context, jar }
        }

        fn headers(&self) -> HeaderMap {
            let mut headers = HeaderMap::new();
            for (name, value) in &self.cookies {
                headers.append(header::COOKIE, format!("{name}={value}").parse().unwrap());
            }
            headers
        }

        fn keep(&mut self, lines: &[HeaderValue]) {
            for line in lines {
                let pair = line.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                self.cookies.retain(|(it, _)| it != name);
                if !value.is_empty() {
                    self.cookies.push((name.to_owned(), value.to_owned()));
                }
            }
        }

        /// A tab that begins a login.
        fn begin(&mut self, target: &str, unix: u64) -> Flow {
            let flow = Flow::begin(target, REDIRECT.to_owned(), unix).unwrap();
            let lines = flow.keep(self.owner(), &self.headers(), unix).unwrap();
            self.keep(&lines);
            flow
        }

        fn find(&self, state: &str, unix: u64) -> Result<String, Lost> {
            let flow = Flow::find(self.owner(), &self.headers(), state, unix)?;
            Ok(flow.target().to_owned())
        }
    }

    #[test]
    fn each_tab_gets_its_own_answer() {
        let mut scene = Scene::new();
        let (first, second) = (scene.begin("/a", NOW), scene.begin("/b", NOW));
        assert_ne!(first.nonce, second.nonce);
        assert_ne!(first.verifier, second.verifier);
        assert_eq!(scene.find(&second.state, NOW).as_deref(), Ok("/b"));
        assert_eq!(scene.find(&first.state, NOW).as_deref(), Ok("/a"));
        scene.keep(&[Flow::forget(scene.owner().jar, &first.state).unwrap()]);
        assert_eq!(scene.find(&first.state, NOW), Err(Lost::Unknown));
        assert_eq!(scene.find(&second.state, NOW).as_deref(), Ok("/b"));
    }

    #[test]
    fn an_answer_to_another_login_is_lost() {
        let mut scene = Scene::new();
        let (first, second) = (scene.begin("/a", NOW), scene.begin("/b", NOW));
        let check = |scene: &Scene, state: &str, unix, expected| {
            assert_eq!(scene.find(state, unix), Err(expected), "{state}");
        };
        for state in [
            "",
            "a",
            "short",
            "é".repeat(20).as_str(),
            "a;b=c; d=eeeeeeeeeee",
            "../../../../../../",
        ] {
            check(&scene, state, NOW, Lost::Unknown);
        }
        // The id of one login with the rest of another.
        let mixed = format!("{}{}", &first.state[..ID], &second.state[ID..]);
        check(&scene, &mixed, NOW, Lost::Unknown);
        check(&scene, &first.state[..ID], NOW, Lost::Unknown);
        check(&scene, &format!("{}x", first.state), NOW, Lost::Unknown);
        check(&scene, &first.state, NOW + LIFE.0, Lost::TooOld);
        assert!(scene.find(&first.state, NOW + LIFE.0 - 1).is_ok());
        // Another browser.
        check(&Scene { cookies: Vec::new(), ..Scene::new() }, &first.state, NOW, Lost::Unknown);
        // The value of one login under the name of the other.
        let (one, other) = (scene.cookies[0].1.clone(), scene.cookies[1].1.clone());
        (scene.cookies[0].1, scene.cookies[1].1) = (other, one);
        check(&scene, &first.state, NOW, Lost::Broken);
        check(&scene, &second.state, NOW, Lost::Broken);
    }

    #[test]
    fn a_cookie_of_another_authenticator_or_secret_is_broken() {
        let mut scene = Scene::new();
        let flow = scene.begin("/a", NOW);
        scene.context = b"other";
        assert_eq!(scene.find(&flow.state, NOW), Err(Lost::Broken));
        scene.context = b"staff";
        assert!(scene.find(&flow.state, NOW).is_ok());
        scene.sealer = Sealer::random().unwrap();
        assert_eq!(scene.find(&flow.state, NOW), Err(Lost::Broken));
        scene.cookies[0].1.truncate(40);
        assert_eq!(scene.find(&flow.state, NOW), Err(Lost::Broken));
    }

    #[test]
    fn the_oldest_login_makes_room() {
        let mut scene = Scene::new();
        let flows: Vec<_> = (0..8).map(|at| scene.begin("/", NOW + at)).collect();
        assert_eq!(scene.cookies.len(), MOST + 1);
        let alive: Vec<bool> =
            flows.iter().map(|it| scene.find(&it.state, NOW + 8).is_ok()).collect();
        assert_eq!(alive, [false, false, false, true, true, true, true, true]);
        // What is over or broken goes first.
        scene.cookies[0].1.truncate(40);
        scene.begin("/", NOW + 9);
        assert_eq!(scene.cookies.len(), MOST + 1);
        let last = scene.begin("/", NOW + 9 + LIFE.0);
        assert_eq!(scene.cookies.len(), 1);
        assert!(scene.find(&last.state, NOW + 9 + LIFE.0).is_ok());
    }

    #[test]
    fn a_flood_of_cookies_is_bounded() {
        let mut scene = Scene::new();
        for number in 0..500 {
            scene
                .cookies
                .push((format!("__Host-tollgate-staff.flow.{number:016}"), "x".to_owned()));
        }
        scene.cookies.push(("__Host-tollgate-staff.flow.a\u{7f}b".to_owned(), "x".to_owned()));
        let flow = Flow::begin("/", REDIRECT.to_owned(), NOW).unwrap();
        let headers = {
            let mut headers = HeaderMap::new();
            for (name, value) in &scene.cookies {
                let line = HeaderValue::from_bytes(format!("{name}={value}").as_bytes());
                headers.extend(line.into_iter().map(|line| (header::COOKIE, line)));
            }
            headers
        };
        let lines = flow.keep(scene.owner(), &headers, NOW).unwrap();
        assert_eq!(lines.len(), 1 + LOOKED_AT);
    }

    #[test]
    fn an_unsafe_target_becomes_the_root() {
        let mut scene = Scene::new();
        for target in ["//evil.test", "/\\evil.test", "https://evil.test", "", "*"] {
            let flow = scene.begin(target, NOW);
            assert_eq!(scene.find(&flow.state, NOW).as_deref(), Ok("/"), "{target}");
        }
    }

    #[test]
    fn the_longest_login_fits_in_a_cookie() {
        let scene = Scene::new();
        let target = format!("/{}", "\"".repeat(999));
        let flow = Flow::begin(&target, "h".repeat(400), NOW).unwrap();
        assert_eq!(flow.target(), target);
        let lines = flow.keep(scene.owner(), &HeaderMap::new(), NOW).unwrap();
        assert!(lines[0].len() <= 4096, "{}", lines[0].len());
    }

    #[test]
    fn the_challenge_is_that_of_the_specification() {
        // RFC 7636 appendix B.
        let mut flow = Flow::begin("/", String::new(), 0).unwrap();
        flow.verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        assert_eq!(flow.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
