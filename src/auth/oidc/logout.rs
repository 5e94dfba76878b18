//! Logging out: the session ends here, its cookies are taken back, and the browser goes on to the
//! provider, which ends its own (OpenID Connect RP-Initiated Logout 1.0).
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    Oidc, Visit,
    cookie::{Jar, Seconds},
    no_store,
};
use crate::{
    auth::{Reason, Refused},
    flow::{
        answer::Reply,
        clock::Now,
        rejection::{Code, Rejection},
    },
};

const PURPOSE: &str = "oidc id token";
/// The ID token, which shows the provider whose logout it is. Only the logout path gets it.
const SUFFIX: &str = ".hint";

impl Oidc {
    /// `Set-Cookie` that keeps the ID token until the logout. None where it is too long for a cookie:
    /// the provider then asks the user.
    pub(super) fn keep_hint(&self, jar: Jar<'_>, id_token: &str) -> Option<HeaderValue> {
        let sealed = self.sealer.seal(PURPOSE, &self.context, id_token.as_bytes()).ok()?;
        let life = Seconds(self.party.config.session.as_secs());
        jar.set_on(&self.config.logout, SUFFIX, &sealed, life)
    }

    fn hint(&self, jar: Jar<'_>, headers: &HeaderMap) -> Option<String> {
        let sealed = jar.find_on_path(headers, SUFFIX)?;
        String::from_utf8(self.sealer.open(PURPOSE, &self.context, sealed)?).ok()
    }

    pub(super) fn log_out(&self, visit: &Visit<'_>, now: Now) -> Refused {
        let Visit { origin, jar, presented } = visit;
        let headers = presented.headers();
        if !matches!(presented.request.method, Method::GET | Method::POST) {
            let allow = HeaderValue::from_static("GET, POST");
            let rejection = Rejection::new(Code::MethodNotAllowed).header(header::ALLOW, allow);
            return super::stop(Reason::Malformed, rejection);
        }
        if origin.is_foreign(headers) {
            let rejection = Rejection::new(Code::AccessDenied).cause("a logout from another site");
            return super::stop(Reason::Denied, rejection);
        }
        if let Some(session) = self.session(*jar, headers, now) {
            self.kept.ended.take(&session.id);
        }
        let back_to = self.config.post_logout_redirect.as_ref().map(|path| origin.url(path));
        let hint = self.hint(*jar, headers);
        let metadata = self.party.provider.metadata();
        let url = metadata
            .and_then(|it| self.party.logout_url(&it, hint.as_deref(), back_to.as_deref()))
            .map(String::from)
            .or(back_to);
        let status = match presented.request.method {
            Method::POST => StatusCode::SEE_OTHER,
            _ => StatusCode::FOUND,
        };
        let location = url.and_then(|it| HeaderValue::from_maybe_shared(Bytes::from(it)).ok());
        let mut reply = no_store(match location {
            Some(location) => Reply::new(status).header(header::LOCATION, location),
            None => Reply::new(StatusCode::OK).body("You are logged out.\n"),
        });
        let mut lines = jar.forget(headers);
        lines.extend(jar.set_on(&self.config.logout, SUFFIX, "", Seconds(0)));
        for line in lines {
            reply = reply.header(header::SET_COOKIE, line);
        }
        super::stop(Reason::Login, reply)
    }
}
