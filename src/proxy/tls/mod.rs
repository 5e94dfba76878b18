//! TLS with clients: the handshake, the connection after it, and what it settled for the requests that
//! come over it. Certificates and their files are in `gateway/tls`; nothing here reads one.

mod crowd;
mod handshake;
mod peer;
mod stream;

pub use self::{
    crowd::Crowd,
    handshake::{Failed, accept, outcome},
    peer::Peer,
    stream::Stream,
};
