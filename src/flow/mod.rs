//! What every stage speaks: who is calling, what refuses, and the clock.
pub mod clock;
pub mod identity;
pub mod rejection;
