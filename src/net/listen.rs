//! Listening sockets: binding them, accepting from them, and how many connections we hold at once.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted; the kernel cuts it to its own `somaxconn`.
const BACKLOG: i32 = 1024;
/// How long accepting rests when the process has no descriptor or memory left for one more connection.
const STARVED_PAUSE: Duration = Duration::from_millis(100);

/// An address on which we cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", explain(source))]
pub struct ListenError {
    /// Where we wanted to listen.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

impl ListenError {
    /// Whether the machine has no addresses of this family at all.
    pub fn no_such_family(&self) -> bool {
        // EAFNOSUPPORT, or EADDRNOTAVAIL for `[::]` where IPv6 is switched off.
        matches!(self.source.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
            || self.source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process already listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports under 1024 need the right to bind them (root, or CAP_NET_BIND_SERVICE)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Binds and listens. Needs a tokio runtime. An IPv6 address takes IPv6 alone, so that `0.0.0.0` and `[::]` can
/// stand beside each other with one port.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    bind(address).map_err(|source| ListenError { address, source })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next connection. Nothing that goes wrong with one connection, and no lack of descriptors or memory, ends
/// the wait; the address is the peer's.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Replies are written whole: there is nothing to wait for. A socket that refuses is dead already.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
                }
                return (stream, peer);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays in the backlog, and asking at once again
                // would spin.
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "cannot accept connections for now");
                }
                tokio::time::sleep(STARVED_PAUSE).await;
            }
        }
    }
}

/// accept(2) passes on errors of the connection that was to be accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// How many connections there are, in all and from each client; all listeners share it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ConnectionLimits(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    total_max: Option<usize>,
    per_ip_max: Option<usize>,
    total: usize,
    per_client: HashMap<IpAddr, usize>,
}

/// Why a connection is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyConnections {
    /// All clients together.
    #[error("too many connections")]
    Total,
    /// This client alone.
    #[error("too many connections from your address")]
    PerIp,
}

impl ConnectionLimits {
    /// `None` is no limit.
    pub fn new(total_max: Option<usize>, per_ip_max: Option<usize>) -> Self {
        let limits = Self::default();
        limits.set(total_max, per_ip_max);
        limits
    }

    /// New limits, for connections to come; those that are there stay and count.
    pub fn set(&self, total_max: Option<usize>, per_ip_max: Option<usize>) {
        let mut counts = self.0.lock();
        counts.total_max = total_max;
        counts.per_ip_max = per_ip_max;
    }

    /// Counts a connection until the guard is dropped.
    pub fn admit(&self, ip: IpAddr) -> Result<ConnectionGuard, TooManyConnections> {
        let client = client_of(ip);
        let mut counts = self.0.lock();
        if counts.total_max.is_some_and(|max| counts.total >= max) {
            return Err(TooManyConnections::Total);
        }
        let from_client = counts.per_client.get(&client).copied().unwrap_or(0);
        if counts.per_ip_max.is_some_and(|max| from_client >= max) {
            return Err(TooManyConnections::PerIp);
        }
        counts.total += 1;
        counts.per_client.insert(client, from_client + 1);
        Ok(ConnectionGuard { limits: self.clone(), client })
    }

    /// Connections at this moment.
    pub fn total(&self) -> usize {
        self.0.lock().total
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer gets (RFC 6177).
fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = v6.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        other => other,
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct ConnectionGuard {
    limits: ConnectionLimits,
    client: IpAddr,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut counts = self.limits.0.lock();
        counts.total = counts.total.saturating_sub(1);
        match counts.per_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.per_client.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_count_until_they_end() {
        let limits = ConnectionLimits::new(Some(3), Some(2));
        let first = limits.admit(ip("192.0.2.1")).unwrap();
        let _second = limits.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(limits.admit(ip("192.0.2.1")).unwrap_err(), TooManyConnections::PerIp);
        let _third = limits.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(limits.admit(ip("192.0.2.3")).unwrap_err(), TooManyConnections::Total);
        drop(first);
        assert_eq!(limits.total(), 2);
        assert!(limits.admit(ip("192.0.2.1")).is_ok());
        assert_eq!(limits.0.lock().per_client.len(), 2);
    }

    #[test]
    fn an_ipv6_client_is_a_network() {
        let limits = ConnectionLimits::new(None, Some(1));
        let _first = limits.admit(ip("2001:db8::1")).unwrap();
        assert!(limits.admit(ip("2001:db8::2")).is_err());
        assert!(limits.admit(ip("2001:db8:0:1::1")).is_ok());
        let _mapped = limits.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(limits.admit(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn without_limits_all_are_admitted_and_none_is_forgotten() {
        let limits = ConnectionLimits::default();
        let guards: Vec<_> = (0..50).map(|_| limits.admit(ip("192.0.2.1")).unwrap()).collect();
        limits.set(None, Some(50));
        assert_eq!(limits.admit(ip("192.0.2.1")).unwrap_err(), TooManyConnections::PerIp);
        drop(guards);
        assert!(limits.0.lock().per_client.is_empty());
    }

    #[tokio::test]
    async fn both_families_share_a_port() {
        let v4 = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = v4.local_addr().unwrap().port();
        let error = listen(v4.local_addr().unwrap()).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot listen on 127.0.0.1:{port}: another process already listens there")
        );
        // A machine without IPv6 cannot show the rest.
        if let Ok(v6) = listen(SocketAddr::new(ip("::1"), port)) {
            assert_eq!(v6.local_addr().unwrap().port(), port);
        }
    }

    #[tokio::test]
    async fn accepted_connections_do_not_wait_for_company() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = accept(&listener).await;
        assert!(server.nodelay().unwrap());
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
