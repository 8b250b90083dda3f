//! Who is connected, as far as one who floods the server can't pretend to be many.

use std::net::{IpAddr, SocketAddr};

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, acceptfrom_with};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A user of this host, at a unix socket.
    User(u32),
    /// Anybody on this host: each address of 127.0.0.0/8 is free to all.
    Loopback,
    /// An address; of IPv6 its network, in which a host may have any.
    Address(IpAddr),
    /// Unknown: all of them are one.
    Unknown,
}

impl Peer {
    fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::Address(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::Address([a, b, c, d, 0, 0, 0, 0].into())
            }
        }
    }

    fn of(stream: &OwnedFd, address: Option<SocketAddrAny>) -> Self {
        match address {
            Some(address) if address.address_family() == AddressFamily::UNIX => {
                socket_peercred(stream).map_or(Self::Unknown, |user| Self::User(user.uid.as_raw()))
            }
            Some(address) => {
                SocketAddr::try_from(address).map_or(Self::Unknown, |address| Self::of_address(address.ip()))
            }
            None => Self::Unknown,
        }
    }
}

/// Accepts a connection.
///
/// # Errors
/// The kernel's.
pub fn accept(listener: &OwnedFd) -> Result<(OwnedFd, Peer), Errno> {
    let (stream, address) = acceptfrom_with(listener.as_fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = Peer::of(&stream, address);
    Ok((stream, peer))
}

/// Returns which connection is given up for one of `new`: one of the peer that has most of them
/// then, first one that asks for nothing, otherwise the one that takes longest. `all` are the peers
/// of the connections, the oldest first, and whether they ask for nothing yet.
pub fn given_up(all: &[(Peer, bool)], new: Peer) -> usize {
    let count = |peer: Peer| all.iter().filter(|one| one.0 == peer).count() + usize::from(peer == new);
    let most = all.iter().map(|one| count(one.0)).max().unwrap_or(0);
    // Of several such peers, the oldest connection: the newest may be a scraper's.
    let its = |one: &(Peer, bool)| count(one.0) == most;
    all.iter().position(|one| its(one) && one.1).or_else(|| all.iter().position(its)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_flood_gives_up_its_own_connections() {
        let (good, flood) = (Peer::User(0), Peer::User(1000));
        let mut all = vec![(good, true)];
        all.extend([(flood, false); 5]);
        assert_eq!(given_up(&all, flood), 1, "the one that takes longest");
        all[3].1 = true;
        assert_eq!(given_up(&all, flood), 3, "one that asks for nothing");
        assert_eq!(given_up(&all, good), 3);
        // Of many peers with one each, the newest stays.
        let many: Vec<_> = (0..32).map(|user| (Peer::User(user), user % 2 == 1)).collect();
        assert_eq!(given_up(&many, Peer::User(99)), 1);
        // Alone, it still gets on.
        assert_eq!(given_up(&[(good, false), (good, true)], good), 1);
    }

    #[test]
    fn many_addresses_of_one_host_are_one_peer() {
        let of = |address: &str| Peer::of_address(address.parse().unwrap());
        assert_eq!(of("127.0.0.1"), of("127.9.8.7"));
        assert_eq!(of("::1"), of("::ffff:127.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn the_peer_of_a_unix_socket_is_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap().into();
        let _client = UnixStream::connect(&path).unwrap();
        let (_, peer) = accept(&listener).unwrap();
        assert_eq!(peer, Peer::User(rustix::process::getuid().as_raw()));
    }
}
