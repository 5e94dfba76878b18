//! What two processes say to each other while one takes over from the other: frames over a pair of
//! sockets that was made for this upgrade, whose other end is the new process's standard input. No path
//! and no folder stands for it, so nobody else can come to it; when one of the two is gone, the other
//! reads the end; and descriptors travel beside the bytes (`SCM_RIGHTS`), so neither end needs a number
//! to be agreed on or unsafe code to adopt one.
use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::limit::{
    handover::Debt,
    quota::{Amount, Kind, Span},
};

/// Raised when frames change their meaning: processes of two numbers do not take over from each other.
pub const PROTOCOL: u32 = 1;
/// The longest frame.
const LONGEST: usize = 1 << 20;
/// Keys of limits in one frame.
pub const DEBTS: usize = 16_384;
/// What quotas have counted in one frame, by consumer and window; 200 bytes each are many.
const COUNTS: usize = 4096;
/// Between two looks at whether it is still worth waiting.
const LOOK: Duration = Duration::from_millis(20);
/// How long the other end may leave what is sent to it unread.
const WRITE: Duration = Duration::from_secs(5);
/// Goes with each descriptor, since one cannot travel alone.
const BESIDE: u8 = b'@';

/// What the new process is told first. The sockets follow: of `listeners` in their order, then the admin's.
/// Addresses are as `value::address` writes them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub pid: u32,
    pub listeners: Vec<String>,
    pub admin: String,
    /// What the keys of limits are made with, see `limit::Seeds`.
    pub seeds: [u64; 8],
    pub probe: u64,
    pub shards: usize,
    /// What is sealed with a secret of the process's own, see `gateway::Shared`.
    pub own_secret: [u8; 32],
    /// How many upgrades have ended so far, by `telemetry::metrics::UpgradeResult`.
    pub upgrades: [u64; 3],
}

#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// From the old process.
    Hello(Box<Hello>),
    /// From the new one: it could serve now, but for these things, which others have not given it.
    Prepared(Vec<String>),
    /// From the new one: why it cannot.
    Failed(String),
    /// From the old one: what keys of limits owe.
    Debts(Vec<Debt>),
    /// From the old one, without a store that both know: what quotas have counted. One that knows no
    /// quotas does not take a configuration with them, and is never sent this.
    Counts(Vec<Amount>),
    /// From the old one: serve.
    Go,
    /// From the new one: it serves.
    Ready,
    /// From the old one: it accepts no more, and the service is the new one's.
    Yours,
    /// From the old one, when it leaves: connections that it cut.
    Cut(u64),
}

/// Why no frame comes.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the other process is gone")]
    Closed,
    #[error("the other process says nothing")]
    Late,
    #[error("it was called off")]
    CalledOff,
    #[error("the other process says what is not understood")]
    Unknown,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How long to wait, and for what to stop waiting.
pub struct Patience<'a> {
    /// None: as long as the other one lives.
    pub until: Option<Instant>,
    pub is_called_off: &'a dyn Fn() -> bool,
}

pub struct Channel {
    socket: UnixStream,
}

impl Channel {
    /// Our end, and the one for the standard input of the other process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::new(ours)?, theirs.into()))
    }

    /// The end that this process was started with; its standard input is empty from then on.
    pub fn of_stdin() -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Asked before anything is read: a file or a terminal has no peer.
        socket.peer_addr()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Self::new(socket)
    }

    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_write_timeout(Some(WRITE))?;
        Ok(Self { socket })
    }

    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let (kind, payload) = frame.encode()?;
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut bytes = vec![kind];
        bytes.extend(length.to_le_bytes());
        bytes.extend(payload);
        self.socket.write_all(&bytes)
    }

    pub fn send_debts(&mut self, debts: impl Iterator<Item = Debt>) -> io::Result<()> {
        let mut debts = debts.peekable();
        while debts.peek().is_some() {
            self.send(&Frame::Debts(debts.by_ref().take(DEBTS).collect()))?;
        }
        Ok(())
    }

    pub fn send_counts(&mut self, counts: &[Amount]) -> io::Result<()> {
        counts.chunks(COUNTS).try_for_each(|it| self.send(&Frame::Counts(it.to_vec())))
    }

    pub fn send_socket(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let sockets = [socket];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&sockets));
        let sent =
            sendmsg(&self.socket, &[IoSlice::new(&[BESIDE])], &mut beside, SendFlags::NOSIGNAL)?;
        if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    pub fn receive(&mut self, patience: &Patience<'_>) -> Result<Frame, Broken> {
        let mut head = [0; 5];
        self.fill(&mut head, patience)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(Broken::Unknown);
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload, patience)?;
        Frame::decode(kind, &payload).ok_or(Broken::Unknown)
    }

    pub fn receive_socket(&mut self, patience: &Patience<'_>) -> Result<OwnedFd, Broken> {
        loop {
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [IoSliceMut::new(&mut byte)];
            match recvmsg(&self.socket, &mut bytes, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) if message.bytes == 0 => return Err(Broken::Closed),
                Ok(_) => {
                    let first = beside.drain().find_map(|it| match it {
                        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                        _ => None,
                    });
                    return first.filter(|_| byte == [BESIDE]).ok_or(Broken::Unknown);
                }
                Err(why) => patience.bear(why.into())?,
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8], patience: &Patience<'_>) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket.read(rest) {
                Ok(0) => return Err(Broken::Closed),
                Ok(read) => rest = rest.get_mut(read..).unwrap_or_default(),
                Err(why) => patience.bear(why)?,
            }
        }
        Ok(())
    }
}

impl Patience<'_> {
    /// Whether it is worth to try again after this.
    fn bear(&self, why: io::Error) -> Result<(), Broken> {
        match why.kind() {
            io::ErrorKind::ConnectionReset => Err(Broken::Closed),
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                if (self.is_called_off)() {
                    Err(Broken::CalledOff)
                } else if self.until.is_some_and(|until| Instant::now() >= until) {
                    Err(Broken::Late)
                } else {
                    Ok(())
                }
            }
            _ => Err(why.into()),
        }
    }
}

impl Frame {
    fn encode(&self) -> io::Result<(u8, Vec<u8>)> {
        Ok(match self {
            Self::Hello(hello) => (b'h', serde_json::to_vec(hello)?),
            Self::Prepared(lacks) => (b'p', serde_json::to_vec(lacks)?),
            Self::Failed(why) => (b'f', why.clone().into_bytes()),
            Self::Debts(debts) => {
                let mut bytes = Vec::with_capacity(debts.len() * Debt::BYTES);
                debts.iter().for_each(|it| it.write(&mut bytes));
                (b'd', bytes)
            }
            Self::Counts(counts) => {
                let counts: Vec<Count> = counts.iter().map(Count::from).collect();
                (b'q', serde_json::to_vec(&counts)?)
            }
            Self::Go => (b'g', Vec::new()),
            Self::Ready => (b'r', Vec::new()),
            Self::Yours => (b'y', Vec::new()),
            Self::Cut(connections) => (b'c', connections.to_le_bytes().to_vec()),
        })
    }

    fn decode(kind: u8, payload: &[u8]) -> Option<Self> {
        Some(match (kind, payload) {
            (b'h', json) => Self::Hello(serde_json::from_slice(json).ok()?),
            (b'p', json) => Self::Prepared(serde_json::from_slice(json).ok()?),
            (b'f', why) => Self::Failed(String::from_utf8_lossy(why).into_owned()),
            (b'd', debts) => {
                let (whole, rest) = debts.as_chunks();
                if !rest.is_empty() {
                    return None;
                }
                Self::Debts(whole.iter().map(Debt::read).collect::<Option<_>>()?)
            }
            (b'q', json) => {
                let counts: Vec<Count> = serde_json::from_slice(json).ok()?;
                Self::Counts(counts.into_iter().filter_map(Count::amount).collect())
            }
            (b'g', []) => Self::Go,
            (b'r', []) => Self::Ready,
            (b'y', []) => Self::Yours,
            (b'c', connections) => Self::Cut(u64::from_le_bytes(connections.try_into().ok()?)),
            _ => return None,
        })
    }
}

/// Consumer, unit, period, the span, and how much.
#[derive(Serialize, Deserialize)]
struct Count(String, String, String, u64, u64, u64);

impl From<&Amount> for Count {
    fn from(it: &Amount) -> Self {
        let (unit, period) = (it.kind.unit.word().to_owned(), it.kind.period.to_string());
        Self(it.consumer.to_string(), unit, period, it.span.start, it.span.end, it.used)
    }
}

impl Count {
    /// None for what another version counts and this one does not.
    fn amount(self) -> Option<Amount> {
        let Self(consumer, unit, period, start, end, used) = self;
        let kind = Kind::parse(&unit, &period)?;
        Some(Amount { consumer: consumer.into(), kind, span: Span { start, end }, used })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    const PATIENT: Patience<'static> = Patience { until: None, is_called_off: &|| false };

    fn channels() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::new(UnixStream::from(theirs)).unwrap())
    }

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let hello = Hello {
            protocol: PROTOCOL,
            pid: 7,
            listeners: vec!["[::]:80".into(), "unix:/run/a.sock".into()],
            admin: "127.0.0.1:9900".into(),
            seeds: [u64::MAX, 1, 2, 3, 4, 5, 6, 7],
            probe: u64::MAX,
            shards: 256,
            own_secret: [7; 32],
            upgrades: [1, 2, 3],
        };
        let (mut one, mut other) = channels();
        for frame in [
            Frame::Hello(Box::new(hello)),
            Frame::Prepared(vec!["a".into(), "b".into()]),
            Frame::Failed("no: ü".into()),
            Frame::Debts(Vec::new()),
            Frame::Counts(vec![Amount {
                consumer: "ä \"b\"".into(),
                kind: Kind::parse("cost", "month").unwrap(),
                span: Span { start: 1, end: u64::MAX },
                used: 1 << 60,
            }]),
            Frame::Go,
            Frame::Ready,
            Frame::Yours,
            Frame::Cut(9),
        ] {
            one.send(&frame).unwrap();
            assert!(other.receive(&PATIENT).ok() == Some(frame));
        }
    }

    #[test]
    fn a_socket_arrives_between_frames() {
        let (mut one, mut other) = channels();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        one.send(&Frame::Yours).unwrap();
        one.send_socket(listener.as_fd()).unwrap();
        one.send(&Frame::Go).unwrap();
        assert!(other.receive(&PATIENT).ok() == Some(Frame::Yours));
        let taken = TcpListener::from(other.receive_socket(&PATIENT).unwrap());
        assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());
        assert!(other.receive(&PATIENT).ok() == Some(Frame::Go));
        one.send(&Frame::Go).unwrap();
        assert!(matches!(other.receive_socket(&PATIENT), Err(Broken::Unknown)));
    }

    #[test]
    fn waiting_ends() {
        let check = |patience: &Patience<'_>, expected: &str| {
            let (_one, mut other) = channels();
            assert_eq!(other.receive(patience).map(drop).unwrap_err().to_string(), expected);
            let said = other.receive_socket(patience).map(drop).unwrap_err().to_string();
            assert_eq!(said, expected);
        };
        let late = Patience { until: Some(Instant::now()), is_called_off: &|| false };
        check(&late, "the other process says nothing");
        check(&Patience { until: None, is_called_off: &|| true }, "it was called off");
        let (one, mut other) = channels();
        drop(one);
        assert!(matches!(other.receive(&PATIENT), Err(Broken::Closed)));
    }

    #[test]
    fn garbage_is_refused() {
        let check = |bytes: &[u8]| {
            let (mut one, mut other) = channels();
            one.socket.write_all(bytes).unwrap();
            assert!(matches!(other.receive(&PATIENT), Err(Broken::Unknown)), "{bytes:?}");
        };
        check(b"hello, I am no gateway\n");
        check(b"g\x01\0\0\0x");
        check(b"d\x01\0\0\0x");
        check(b"h\x02\0\0\0{}");
        check(b"z\0\0\0\0");
    }

    proptest! {
        #[test]
        fn no_payload_does_harm(kind in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::decode(kind, &payload);
        }
    }
}
