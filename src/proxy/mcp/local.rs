//! A call of a tool that is one of our own: an operation of an API behind this gateway.
use pingora::Error as Broken;

use super::{Asking, relay::Ended, say::Client, target::Target};
use crate::gateway::mcp::Api;

/// # Errors
/// The client is gone.
pub async fn call(
    _asking: &Asking<'_>,
    _client: &mut Client<'_>,
    _api: &Api,
    target: &Target,
) -> Result<Ended, Box<Broken>> {
    let error =
        serde_json::json!({"code": -32_603, "message": format!("no operation {}", target.own)});
    Ok(Ended::Error(error.to_string(), 200))
}
