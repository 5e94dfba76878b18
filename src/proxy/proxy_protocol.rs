//! The PROXY protocol, versions 1 and 2: what a load balancer says of the client before the client's
//! first byte (haproxy.org, proxy-protocol.txt, 2020/03/05). Asked for of trusted proxies only, and of
//! them always: whether it is there is never guessed.
use std::{
    future::poll_fn,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use super::socket::Socket;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header of version 1 at most, line end included (section 2.1).
const LONGEST_V1: usize = 107;
/// Bytes behind the first 16 of version 2 at most; addresses take 216 of them, the rest is additions.
const LONGEST_V2: usize = 2048;
/// Bytes of one read: most headers with what follows.
const READ: usize = 512;

/// What the proxy says of the connection that it has accepted. Nothing of its own checks of itself and
/// of connections that are not TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub client: Option<SocketAddr>,
    /// Where the client had connected to.
    pub destination: Option<SocketAddr>,
}

/// Bytes that no header begins with, or that break its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub struct Malformed;

/// The header that `bytes` begin with and its length; `None` while it is not whole.
///
/// # Errors
/// There is none, and none will come of more bytes.
pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Said)>, Malformed> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    if bytes.len() >= V1.len() && begins(V1) {
        parse_v1(bytes)
    } else if bytes.len() >= V2.len() && begins(V2) {
        parse_v2(bytes)
    } else if begins(V1) || begins(V2) {
        Ok(None)
    } else {
        Err(Malformed)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(usize, Said)>, Malformed> {
    let head = bytes.get(..LONGEST_V1).unwrap_or(bytes);
    let Some(end) = memchr::memmem::find(head, b"\r\n") else {
        return if head.len() < LONGEST_V1 { Ok(None) } else { Err(Malformed) };
    };
    let line = head.get(..end).and_then(|it| std::str::from_utf8(it).ok()).ok_or(Malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let said = match words.as_slice() {
        [_, "UNKNOWN", ..] => Said::default(),
        [_, "TCP4", from, to, from_port, to_port] => Said {
            client: Some(v1_address::<Ipv4Addr>(from, from_port)?),
            destination: Some(v1_address::<Ipv4Addr>(to, to_port)?),
        },
        [_, "TCP6", from, to, from_port, to_port] => Said {
            client: Some(v1_address::<Ipv6Addr>(from, from_port)?),
            destination: Some(v1_address::<Ipv6Addr>(to, to_port)?),
        },
        _ => return Err(Malformed),
    };
    Ok(Some((end + 2, said)))
}

fn v1_address<A: std::str::FromStr + Into<IpAddr>>(
    address: &str,
    port: &str,
) -> Result<SocketAddr, Malformed> {
    let address: A = address.parse().map_err(|_| Malformed)?;
    // Without a sign and without leading zeros (section 2.1).
    let is_plain = port == "0" || !port.starts_with(['0', '+']);
    let port: u16 = port.parse().ok().filter(|_| is_plain).ok_or(Malformed)?;
    Ok(SocketAddr::new(address.into(), port))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(usize, Said)>, Malformed> {
    let Some([command, family, high, low]) = bytes.get(12..16) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST_V2 || !matches!(command, 0x20 | 0x21) {
        return Err(Malformed);
    }
    let Some(rest) = bytes.get(16..16 + length) else { return Ok(None) };
    let said = match (command, family) {
        // LOCAL: the proxy's own doing, such as a health check. UNSPEC and Unix sockets say no address.
        (0x20, _) | (_, 0x00 | 0x31 | 0x32) => Said::default(),
        (_, 0x11) => v2_addresses::<4, Ipv4Addr>(rest)?,
        (_, 0x21) => v2_addresses::<16, Ipv6Addr>(rest)?,
        _ => return Err(Malformed),
    };
    Ok(Some((16 + length, said)))
}

/// Both addresses, then both ports; what follows are additions.
fn v2_addresses<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(
    bytes: &[u8],
) -> Result<Said, Malformed> {
    let (from, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    let (to, rest) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let (from_port, rest) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    let (to_port, _) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    let address = |address: [u8; N], port: [u8; 2]| {
        Some(SocketAddr::new(A::from(address).into(), u16::from_be_bytes(port)))
    };
    Ok(Said { client: address(*from, *from_port), destination: address(*to, *to_port) })
}

/// Reads the header and gives the socket the addresses in it. The caller bounds the time.
///
/// # Errors
/// There is no header, or the connection has ended.
pub async fn accept(mut socket: Socket) -> Result<Socket, Malformed> {
    let mut buf = BytesMut::new();
    loop {
        let read = poll_fn(|cx| {
            let mut space = [MaybeUninit::<u8>::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut socket).poll_read(cx, &mut read)).ok();
            buf.extend_from_slice(read.filled());
            Poll::Ready(read.filled().len())
        });
        if read.await == 0 {
            return Err(Malformed);
        }
        if let Some((length, said)) = parse(&buf)? {
            socket.rewind(buf.get(length..).unwrap_or_default());
            if let Some(client) = said.client {
                socket.stands_for(client, said.destination);
            }
            return Ok(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(client: &str, destination: &str) -> Said {
        Said { client: client.parse().ok(), destination: destination.parse().ok() }
    }

    /// The header is `bytes` without the last `rest` of them.
    #[track_caller]
    fn check(bytes: &[u8], rest: usize, expected: Said) {
        assert_eq!(parse(bytes), Ok(Some((bytes.len() - rest, expected))));
        for end in 0..bytes.len() - rest {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes");
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_say_who_and_where() {
        let four = said("192.0.2.1:56324", "192.0.2.2:443");
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", 0, four);
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /", 5, four);
        let six = said("[2001:db8::1]:1", "[2001:db8::2]:0");
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 0\r\n", 0, six);
        check(b"PROXY UNKNOWN\r\n", 0, Said::default());
        check(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", 0, Said::default());
        let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];
        check(&v2(0x21, 0x11, &addresses), 0, four);
        check(&[&v2(0x21, 0x11, &addresses)[..], b"GET /"].concat(), 5, four);
        // Additions, whatever they say.
        check(&v2(0x21, 0x11, &[&addresses[..], &[4, 0, 1, 0]].concat()), 0, four);
        let mut addresses = [0; 36];
        addresses[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        addresses[16..32].copy_from_slice(&"2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        addresses[33] = 1;
        check(&v2(0x21, 0x21, &addresses), 0, six);
        check(&v2(0x20, 0x00, &[]), 0, Said::default());
        check(&v2(0x20, 0x11, &[1, 2, 3]), 0, Said::default());
        check(&v2(0x21, 0x31, &[0; 216]), 0, Said::default());
    }

    #[test]
    fn whatever_else_is_none() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'a'; 200]].concat();
        let cases: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n".to_vec(),
            b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(),
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            long,
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x99, &[0; 12]),
            v2(0x21, 0x11, &[0; LONGEST_V2 + 1]),
        ];
        for bytes in cases {
            assert_eq!(parse(&bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_none_are_taken_that_are_not_there(
            bytes: Vec<u8>,
            version in 0..3_usize,
        ) {
            let bytes = [[b"", V1, V2][version], &bytes].concat();
            if let Ok(Some((length, _))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
