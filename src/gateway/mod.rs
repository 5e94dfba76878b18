//! (to come)
pub mod matcher;
