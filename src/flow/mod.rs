//! What every stage speaks: who is calling, what refuses or answers, and the clock.
pub mod answer;
pub mod caller;
pub mod certificate;
pub mod clock;
pub mod grpc;
pub mod identity;
pub mod rejection;
pub mod reserved;
