//! What the operator wrote: from text to raw structs, with every problem named by its place.
pub mod raw;
