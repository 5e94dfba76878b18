//! Small validated words: parsed once, when the configuration is compiled, and no strings later.
pub mod address;
pub mod cidr;
pub mod claim;
pub mod duration;
pub mod host;
pub mod path;
pub mod query;
pub mod secret;
pub mod size;
pub mod template;
