//! Amazon's signature of requests (SigV4), for Bedrock's keys that are no bearer tokens: the signing is
//! the work of Amazon's own crate.
use std::{fmt, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http::{HeaderName, HeaderValue};

/// One access key, for one region.
pub struct Signer {
    credentials: Credentials,
    region: Box<str>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.region)
    }
}

/// Whether a secret is an access key with its secret, `ID:SECRET` or `ID:SECRET:SESSION`. Bearer tokens
/// have no colon.
#[must_use]
pub fn is_access_key(secret: &str) -> bool {
    secret.contains(':')
}

impl Signer {
    /// # Errors
    /// A piece of the secret is missing.
    pub fn new(secret: &str, region: &str) -> Result<Self, String> {
        let mut pieces = secret.splitn(3, ':');
        let (id, key) = (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default());
        let session = pieces.next().filter(|it| !it.is_empty()).map(str::to_owned);
        if id.is_empty() || key.is_empty() {
            return Err("the secret is neither a bearer token nor ID:SECRET".to_owned());
        }
        let credentials = Credentials::new(id, key, session, None, "tollgate");
        Ok(Self { credentials, region: region.into() })
    }

    /// The headers that show who sends this.
    ///
    /// # Errors
    /// What cannot be signed: no URL that is one comes to that.
    pub fn headers(
        &self,
        url: &str,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("bedrock")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|why| why.to_string())?
            .into();
        let typed = [("content-type", "application/json")];
        let body = SignableBody::Bytes(body);
        let request = SignableRequest::new("POST", url, typed.into_iter(), body)
            .map_err(|why| why.to_string())?;
        let signed = sign(request, &params).map_err(|why| why.to_string())?;
        let (headers, _) = signed.into_parts().0.into_parts();
        let header = |name: &str, value: &str| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|why| why.to_string())?;
            let mut value = HeaderValue::from_str(value).map_err(|why| why.to_string())?;
            value.set_sensitive(true);
            Ok((name, value))
        };
        headers.iter().map(|it| header(it.name(), it.value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_request_is_signed_for_its_region_and_time() {
        let signer = Signer::new("AKID:SECRET:SESSION", "eu-west-1").unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let url = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/a%3A0/converse";
        let headers = signer.headers(url, b"{}", now).unwrap();
        let get = |name: &str| {
            let found = headers.iter().find(|(it, _)| it == name);
            found.map_or("", |(_, value)| value.to_str().unwrap())
        };
        let scope = "AWS4-HMAC-SHA256 Credential=AKID/20231114/eu-west-1/bedrock/aws4_request, ";
        assert!(get("authorization").starts_with(scope), "{}", get("authorization"));
        assert_eq!(get("x-amz-date"), "20231114T221320Z");
        assert_eq!(get("x-amz-security-token"), "SESSION");
        let again = signer.headers(url, b"{}", now).unwrap();
        assert_eq!(headers, again, "the same each time");
        assert_ne!(headers, signer.headers(url, b"{ }", now).unwrap());
        assert!(!format!("{signer:?}").contains("SECRET"));
    }

    #[test]
    fn a_key_is_a_token_or_has_its_secret() {
        assert!(!is_access_key("bedrock-api-key-abc="));
        assert!(is_access_key("AKID:SECRET"));
        assert!(Signer::new("AKID:", "r").is_err() && Signer::new(":SECRET", "r").is_err());
    }
}
