//! Our refusals: a closed list of codes, each with its status and title in one place.
use std::fmt::Display;

use http::{HeaderName, HeaderValue};

macro_rules! codes {
    ($($name:ident = $status:literal $word:literal $title:literal;)+) => {
        /// Why a request was refused. `docs/errors.md` explains each; a test holds the two together.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($name),+ }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The HTTP status of the answer.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status),+ } }

            /// The stable word that programs match on.
            #[must_use]
            pub const fn word(self) -> &'static str { match self { $(Self::$name => $word),+ } }

            /// The short sentence for people; the same for every occurrence (RFC 9457 section 3.1.3).
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $(Self::$name => $title),+ } }
        }
    };
}

codes! {
    RequestMalformed = 400 "request_malformed" "The request is malformed";
    ParameterUnsupported = 400 "parameter_unsupported" "The model cannot honour a parameter";
    EndpointUnsupported = 400 "endpoint_unsupported" "The model cannot be asked this";
    RequestBlocked = 400 "request_blocked" "A guard does not let the request pass";
    AnswerBlocked = 400 "answer_blocked" "A guard does not let the answer pass";
    LoginFailed = 400 "login_failed" "The login was not completed";
    CredentialRequired = 401 "credential_required" "A credential is required";
    CredentialInvalid = 401 "credential_invalid" "The credential was not accepted";
    AccessDenied = 403 "access_denied" "Access is denied";
    CorsRefused = 403 "cors_refused" "Scripts of this origin may not send such a request";
    RouteUnknown = 404 "route_unknown" "No route matches this request";
    EndpointUnknown = 404 "endpoint_unknown" "There is no such endpoint";
    ModelUnknown = 404 "model_not_found" "The model does not exist";
    MethodNotAllowed = 405 "method_not_allowed" "This route does not allow the method";
    RequestTimeout = 408 "request_timeout" "The request took too long to arrive";
    BodyTooLarge = 413 "body_too_large" "The request body is too large";
    UriTooLong = 414 "uri_too_long" "The request target is too long";
    ExpectationFailed = 417 "expectation_failed" "The expectation cannot be met";
    MediaTypeUnsupported = 415 "media_type_unsupported" "The type of the body is not accepted";
    ContentCodingUnsupported = 415 "content_coding_unsupported" "The coding of the body is not accepted";
    Misdirected = 421 "misdirected_request" "The request belongs on another connection";
    RequestInvalid = 422 "request_invalid" "The request is not what is expected";
    RateLimited = 429 "rate_limited" "The rate limit is exceeded";
    ConcurrencyLimited = 429 "concurrency_limited" "Too many requests at the same time";
    QuotaExceeded = 429 "quota_exceeded" "The quota is used up";
    HeadersTooLarge = 431 "headers_too_large" "The request headers are too large";
    InternalError = 500 "internal_error" "The gateway failed";
    UpstreamFailed = 502 "upstream_failed" "The upstream failed";
    UpstreamUnavailable = 503 "upstream_unavailable" "No healthy endpoint is available";
    GuardUnavailable = 503 "guard_unavailable" "What is said cannot be checked now";
    AuthenticatorUnavailable = 503 "authenticator_unavailable" "The caller cannot be verified now";
    Overloaded = 503 "overloaded" "The gateway is overloaded";
    VersionNotSupported = 505 "version_not_supported" "This HTTP version is not supported";
    NotStored = 504 "not_stored" "No stored response will do";
    UpstreamTimeout = 504 "upstream_timeout" "The upstream did not answer in time";
}

impl Code {
    /// Refusals that a route with `mode: report` lets through: those for who may do how much, and for
    /// what does not validate. What is not HTTP, breaks a bound of the server or cannot be served is refused in any mode.
    pub const REPORTABLE: &'static [Self] = &[
        Self::CredentialRequired,
        Self::CredentialInvalid,
        Self::AccessDenied,
        Self::MediaTypeUnsupported,
        Self::RequestInvalid,
        Self::RateLimited,
        Self::ConcurrencyLimited,
        Self::QuotaExceeded,
        Self::AuthenticatorUnavailable,
        Self::Overloaded,
    ];

    #[must_use]
    pub fn is_reportable(self) -> bool {
        Self::REPORTABLE.contains(&self)
    }
}

/// A refusal by value. `proxy/reply.rs` is the one place that writes it.
#[derive(Debug)]
pub struct Rejection {
    pub code: Code,
    /// Said to the client; never names a secret, an address or which of several checks failed.
    pub detail: Option<String>,
    /// Said to the log only.
    pub cause: Option<String>,
    /// Extra answer headers: `WWW-Authenticate`, `Retry-After`, `Allow`, the limits.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Where in the request, and by which rule: members of the answer besides.
    pub at: Option<Box<At>>,
}

/// A place in a request that is not what it should be.
#[derive(Debug)]
pub struct At {
    /// A JSON pointer into the body, or the name of a parameter.
    pub pointer: String,
    /// Of a schema.
    pub keyword: String,
}

impl Rejection {
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self { code, detail: None, cause: None, headers: Vec::new(), at: None }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    #[must_use]
    pub fn at(mut self, pointer: String, keyword: String) -> Self {
        self.at = Some(Box::new(At { pointer, keyword }));
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
