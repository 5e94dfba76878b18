//! Which servers of tools somebody would see, without asking any.
use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    flow::identity::Identity,
    gateway::mcp::{Hub, Kind, Server},
};

/// The servers of tools that this caller would see. Which tools they have only they know.
pub fn seen(hub: &Hub, identity: Option<&Identity>) -> Value {
    let shown = |server: &Arc<Server>| {
        let upstream = match &server.kind {
            Kind::Remote(remote) => {
                remote.upstream.endpoints().first().map(|it| json!(&**it.url()))
            }
            Kind::Api(_) => None,
        };
        json!({"name": &*server.name, "endpoint": upstream})
    };
    let seen = hub.servers.iter().filter(|it| hub.may_see(identity, &it.name));
    json!({
        "servers": seen.map(shown).collect::<Vec<_>>(),
        "names": if hub.is_prefixed { "server__tool" } else { "tool" },
        "is_token_for_resource": hub.is_for(identity),
    })
}
