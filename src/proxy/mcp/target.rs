//! What a request is about: the server that has it, and what that server calls it. Names are looked up in
//! the lists of servers as they are; what a caller may not use is answered as what is not there.
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Asking;
use crate::{
    gateway::mcp::Server,
    mcp::{Error, Object, catalogue::Kind, name, object::quoted},
};

/// A request as its server gets it.
pub struct Target {
    pub server: Arc<Server>,
    /// The server's own name for it.
    pub own: Arc<str>,
    /// Of a tool: what rules call it.
    pub canonical: Option<String>,
    pub params: String,
}

impl Asking<'_> {
    /// # Errors
    /// There is no such thing for this caller.
    pub async fn target(&self, method: &str, params: &Object<'_>) -> Result<Target, Error> {
        match method {
            "tools/call" => self.named(Kind::Tools, "tool", params).await,
            "prompts/get" => self.named(Kind::Prompts, "prompt", params).await,
            "completion/complete" => self.completed(params).await,
            _ => {
                let uri = params.text("uri").ok_or_else(|| lacks("uri"))?;
                let (server, own) = self.resource(&uri)?;
                let changed = params.with(&[("uri", Some(&quoted(own)))]);
                Ok(Target {
                    server: server.clone(),
                    own: own.into(),
                    canonical: None,
                    params: changed,
                })
            }
        }
    }

    async fn named(&self, kind: Kind, what: &str, params: &Object<'_>) -> Result<Target, Error> {
        let public = params.text("name").ok_or_else(|| lacks("name"))?;
        if params.raw("arguments").is_some_and(|it| !it.get().starts_with('{')) {
            return Err(Error::params("`arguments` must be an object"));
        }
        let (server, own) = self.find(kind, what, &public).await?;
        let canonical = (kind == Kind::Tools).then(|| format!("{}__{own}", server.name));
        let params = params.with(&[("name", Some(&quoted(&own)))]);
        Ok(Target { server, own, canonical, params })
    }

    /// The server that has something, and its own name for it.
    async fn find(
        &self,
        kind: Kind,
        what: &str,
        public: &str,
    ) -> Result<(Arc<Server>, Arc<str>), Error> {
        let unknown = || Error::unknown(what, public);
        let server = match self.hub.is_prefixed {
            true => name::server_of(public).and_then(|it| self.hub.server(it)),
            false => self.hub.servers.first(),
        };
        let server = server.filter(|it| self.hub.may_see(self.identity, &it.name));
        let server = server.ok_or_else(unknown)?;
        let listed = self.listed(server, kind).await.map_err(|_| unavailable(server))?;
        let catalogue = listed.catalogue(kind, &server.name, self.hub.is_prefixed);
        let entry = catalogue.find(public).filter(|it| self.admits(server, kind, it));
        let entry = entry.ok_or_else(unknown)?;
        Ok((server.clone(), entry.own.clone()))
    }

    /// Resources are not looked up: a server may have more than it lists.
    fn resource<'u>(&self, uri: &'u str) -> Result<(&Arc<Server>, &'u str), Error> {
        let mut servers = self.servers();
        let found = match self.hub.is_prefixed {
            true => servers.find_map(|it| Some((it, name::unwrapped(&it.name, uri)?))),
            false => servers.next().map(|it| (it, uri)),
        };
        found.ok_or_else(|| {
            let shown: String = uri.chars().take(256).collect();
            let data = serde_json::json!({"uri": shown});
            Error { data: Some(data), ..Error::params("the resource was not found") }
        })
    }

    async fn completed(&self, params: &Object<'_>) -> Result<Target, Error> {
        let about = params.object("ref").ok_or_else(|| lacks("ref"))?;
        let (server, own, key) = match about.text("type").as_deref() {
            Some("ref/prompt") => {
                let name = about.text("name").ok_or_else(|| lacks("ref.name"))?;
                let (server, own) = self.find(Kind::Prompts, "prompt", &name).await?;
                (server, own, "name")
            }
            Some("ref/resource") => {
                let uri = about.text("uri").ok_or_else(|| lacks("ref.uri"))?;
                let (server, own) = self.resource(&uri)?;
                (server.clone(), own.into(), "uri")
            }
            _ => return Err(lacks("ref.type")),
        };
        let about = about.with(&[(key, Some(&quoted(&own)))]);
        let params = params.with(&[("ref", Some(&about))]);
        Ok(Target { server, own, canonical: None, params })
    }
}

fn lacks(what: &str) -> Error {
    Error::params(format!("`params` lacks `{what}`"))
}

#[must_use]
pub fn unavailable(server: &Server) -> Error {
    Error::internal(format!("the server `{}` does not answer", server.name))
}

/// What a server says of its resources, by the names that clients know them by.
#[must_use]
pub fn wrapped(server: &str, said: &RawValue) -> Option<String> {
    memchr::memmem::find(said.get().as_bytes(), b"\"uri\"")?;
    let mut value: serde_json::Value = serde_json::from_str(said.get()).ok()?;
    let wrap = |it: &mut serde_json::Value| {
        if let Some(serde_json::Value::String(uri)) = it.get_mut("uri") {
            *uri = name::wrapped(server, uri);
        }
    };
    let contents = value.get_mut("contents").and_then(serde_json::Value::as_array_mut);
    contents.into_iter().flatten().for_each(wrap);
    let content = |it: &mut serde_json::Value| match it.get("type").and_then(|it| it.as_str()) {
        Some("resource_link") => wrap(it),
        Some("resource") => it.get_mut("resource").into_iter().for_each(wrap),
        _ => {}
    };
    let blocks = value.get_mut("content").and_then(serde_json::Value::as_array_mut);
    blocks.into_iter().flatten().for_each(content);
    let messages = value.get_mut("messages").and_then(serde_json::Value::as_array_mut);
    messages.into_iter().flatten().filter_map(|it| it.get_mut("content")).for_each(content);
    Some(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_told_by_their_public_names() {
        let check = |said: &str, expected: Option<&str>| {
            let said: Box<RawValue> = serde_json::from_str(said).unwrap();
            assert_eq!(wrapped("a_b", &said).as_deref(), expected);
        };
        check(r#"{"content":[{"type":"text","text":"x"}]}"#, None);
        check(
            r#"{"contents":[{"uri":"x:1","text":"{\"uri\":\"x:1\"}"}]}"#,
            Some(r#"{"contents":[{"uri":"a.b+x:1","text":"{\"uri\":\"x:1\"}"}]}"#),
        );
        check(
            r#"{"content":[{"type":"resource_link","uri":"x:1"},{"type":"resource","resource":{"uri":"x:2"}}],"structuredContent":{"uri":"x:3"}}"#,
            Some(
                r#"{"content":[{"type":"resource_link","uri":"a.b+x:1"},{"type":"resource","resource":{"uri":"a.b+x:2"}}],"structuredContent":{"uri":"x:3"}}"#,
            ),
        );
        check(
            r#"{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"x:2"}}}]}"#,
            Some(
                r#"{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"a.b+x:2"}}}]}"#,
            ),
        );
    }
}
