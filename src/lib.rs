//! Tollgate, an API gateway on Pingora. This file is the map, in reading order, lowest layer first;
//! a module names only modules above it in this list (`tests/tidy.rs` holds that).

pub mod admin; // L7 the admin listener
pub mod auth; // L3 who is it?
pub mod cache; // L3 what may be kept, and where
pub mod cli; // L8 one file a verb
pub mod config; // L5 what the operator wrote
pub mod content; // L1 what stands in a body: types, codings, JSON, forms
pub mod diagnostic; // L0 what is wrong in a configuration, with its place
pub mod flow; // L1 what every stage speaks: identity, rejection, clock
pub mod gateway; // L6 what runs: one compiled snapshot
pub mod limit; // L3 how much?
pub mod llm; // L3 what models are asked and answer, in every vendor's words
pub mod mcp; // L3 servers of tools: their protocol, names, who may use what
pub mod policy; // L4 the behaviours of a route, in their order on the wire
pub mod proxy; // L7 the data path, on Pingora
pub mod reload; // L8 from a file to a running snapshot
pub mod server; // L8 listeners, workers, signals
pub mod shared; // L2 what outlives a snapshot
pub mod store; // L2 consumers and keys made at run time, last uses, the audit
pub mod telemetry; // L2 metrics and the access log
pub mod upstream; // L3 where to?
pub mod value; // L0 small validated words
