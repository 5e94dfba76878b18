//! The Model Context Protocol: its messages in both of its eras, what servers offer under which names, who
//! may use it, and what is sealed for clients to keep. Bytes in, bytes out: knows nothing of connections.
pub mod access;
pub mod catalogue;
pub mod error;
pub mod jsonrpc;
pub mod name;
pub mod object;
pub mod sealed;
pub mod tool;
pub mod version;

pub use self::{
    catalogue::{Catalogue, Item, Kind},
    error::Error,
    jsonrpc::Message,
    object::Object,
    tool::Tool,
    version::{Era, Version},
};

/// Members of `_meta` that belong to the protocol itself.
pub mod meta {
    pub const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    pub const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
    pub const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    pub const SERVER: &str = "io.modelcontextprotocol/serverInfo";
    pub const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
    pub const PROGRESS: &str = "progressToken";
}
