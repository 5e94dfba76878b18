//! The sockets that the process listens on: over the network, or on this machine by a path. A file of a
//! socket is ours from the moment that we made it or took it over until another process has it.
use std::{
    fs::{self, File, Permissions},
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    gateway::Listener,
    proxy::socket::{self, Transport},
    value::address::Address,
};

/// Connections that wait in the kernel until a worker accepts them.
const BACKLOG: i32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Listening {
    /// As another process had it.
    pub fn adopt(address: &Address, descriptor: OwnedFd) -> Self {
        match address {
            Address::Inet(_) => Self::Tcp(descriptor.into()),
            Address::Unix(_) => Self::Unix(descriptor.into()),
        }
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }
}

/// The same on a runtime.
pub enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Acceptor {
    pub fn new(listening: Listening) -> io::Result<Self> {
        Ok(match listening {
            Listening::Tcp(socket) => Self::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Listening::Unix(socket) => Self::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    pub async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Accepted { transport: Transport::Tcp(stream), peer: Some(peer) }
            }
            Self::Unix(socket) => {
                Accepted { transport: Transport::Unix(socket.accept().await?.0), peer: None }
            }
        })
    }
}

/// A connection as it was accepted.
pub struct Accepted {
    transport: Transport,
    /// None for one from this machine.
    peer: Option<SocketAddr>,
}

impl AsRawFd for Accepted {
    fn as_raw_fd(&self) -> RawFd {
        self.transport.as_raw_fd()
    }
}

impl Accepted {
    pub fn into_socket(self) -> socket::Socket {
        if let Transport::Tcp(stream) = &self.transport {
            let _ = stream.set_nodelay(true);
        }
        socket::Socket::new(self.transport, self.peer)
    }
}

/// The file of a socket, removed when this is dropped, if it is ours then and still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: Arc<Path>,
    /// Device and number, since somebody may have put another in its place.
    identity: (u64, u64),
    is_ours: AtomicBool,
}

impl SocketFile {
    /// That of an address, if it has one and it is there.
    pub fn of(address: &Address) -> Option<Self> {
        let Address::Unix(path) = address else { return None };
        let identity = identity(path)?;
        Some(Self { path: path.clone(), identity, is_ours: AtomicBool::new(false) })
    }

    pub fn set_ours(&self, is_ours: bool) {
        self.is_ours.store(is_ours, Ordering::Release);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours.load(Ordering::Acquire) && identity(&self.path) == Some(self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
}

/// A listener's socket, and its file where it has one.
#[derive(Debug)]
pub struct Bound {
    pub address: Address,
    pub socket: Listening,
    pub file: Option<SocketFile>,
}

impl Bound {
    /// # Errors
    /// As the system says: the address is taken or not ours, or it is not permitted.
    pub fn new(listener: &Listener) -> io::Result<Self> {
        let address = listener.address.clone();
        let (socket, file) = match &address {
            Address::Inet(address) => (Listening::Tcp(tcp(*address)?), None),
            Address::Unix(path) => {
                let (socket, file) = unix(path, &address, listener.mode)?;
                (Listening::Unix(socket), Some(file))
            }
        };
        Ok(Self { address, socket, file })
    }

    /// What another process listens on. Its file stays that process's until it lets go; none, if it
    /// has been removed: nobody could connect.
    pub fn adopt(listener: &Listener, socket: Listening) -> Option<Self> {
        let address = listener.address.clone();
        let file = SocketFile::of(&address);
        if let Address::Unix(path) = &address {
            file.as_ref()?;
            let _ = fs::set_permissions(path, Permissions::from_mode(listener.mode));
        }
        Some(Self { address, socket, file })
    }
}

pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restart would wait for old connections to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: &Path, address: &Address, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    clear(path)?;
    // The file has the permissions that the socket had before (unix(7)): none, until it listens.
    let closed = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    closed.set_permissions(Permissions::from_mode(0o0))?;
    let socket = Socket::from(OwnedFd::from(closed));
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(address).ok_or(io::ErrorKind::NotFound)?;
    file.set_ours(true);
    socket.listen(BACKLOG)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok((OwnedFd::from(socket).into(), file))
}

/// Removes what a process that did not end properly has left there: a socket on which nobody listens,
/// and nothing else.
fn clear(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.file_type().is_socket() {
        let message = "there is something that is no socket, which stays";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full would not answer at all.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Err(why),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(path: &Path) -> Listener {
        let address = format!("unix:{}", path.display()).parse().unwrap();
        let (is_h2c, has_proxy_protocol) = (false, false);
        Listener { name: "local".into(), address, mode: 0o620, is_h2c, has_proxy_protocol }
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let bound = Bound::new(&listener(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        let said = Bound::new(&listener(&path)).unwrap_err();
        assert_eq!(said.kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn what_was_left_behind_is_replaced_and_what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (stale, file) = (folder.path().join("a.sock"), folder.path().join("b.sock"));
        drop(UnixListener::bind(&stale).unwrap());
        assert!(Bound::new(&listener(&stale)).is_ok());
        fs::write(&file, "mine").unwrap();
        let said = Bound::new(&listener(&file)).unwrap_err();
        assert_eq!(said.kind(), io::ErrorKind::AlreadyExists);
        std::os::unix::fs::symlink(&file, folder.path().join("c.sock")).unwrap();
        assert!(Bound::new(&listener(&folder.path().join("c.sock"))).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn only_the_last_owner_removes_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = listener(&path);
        let old = Bound::new(&listener).unwrap();
        let new = Bound::adopt(&listener, old.socket.try_clone().unwrap()).unwrap();
        old.file.as_ref().unwrap().set_ours(false);
        new.file.as_ref().unwrap().set_ours(true);
        drop(old);
        assert!(path.exists());
        // Somebody else's by now.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(new);
        assert!(path.exists());
        drop(other);
        fs::remove_file(&path).unwrap();
        let gone = Bound::new(&listener).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Bound::adopt(&listener, gone.socket.try_clone().unwrap()).is_none());
    }
}
