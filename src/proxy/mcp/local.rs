//! A call of a tool that is one of our own: an operation of an API behind this gateway.
use pingora::Error as Broken;

use super::{Asking, relay::Ended, say::Client, target::Target};
use crate::{
    gateway::mcp::Api,
    mcp::{Object, version::Era},
    proxy::errand::Call,
};

/// # Errors
/// The client is gone.
pub async fn call(
    asking: &Asking<'_>,
    client: &mut Client<'_>,
    api: &Api,
    (target, params): (&Target, &Object<'_>),
) -> Result<Ended, Box<Broken>> {
    let operations = &api.operations;
    let Some(function) = operations.find(&target.own) else {
        // What is listed is there: only a reload in between could tell otherwise, and there is none.
        let error = serde_json::json!({"code": -32_603, "message": "there is no such operation"});
        return Ok(Ended::Error(error.to_string(), 200));
    };
    let origin = (&*client.session, &*client.exchange);
    let said = match Call::prepare(origin, operations, function, params.raw("arguments")) {
        Ok(call) => {
            let put = call.put(asking.proxy, &asking.talk.trace, target.server.timeout);
            client.wait(Box::pin(put)).await?
        }
        Err(said) => said,
    };
    Ok(Ended::Result(match (client.era, said.strip_prefix('{')) {
        (Era::Modern, Some(rest)) => format!("{{\"resultType\":\"complete\",{rest}"),
        _ => said,
    }))
}
