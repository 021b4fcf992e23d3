//! Opening connections, straight ([`dial`]) or through a SOCKS5 proxy ([`dial_through`]; RFC 1928, RFC 1929).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio_socks::Error as SocksError;
use tokio_socks::tcp::Socks5Stream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The peer did not answer in time.
    #[error("connection timed out after {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The peer or the network refused.
    #[error("{}", reason(.0))]
    Refused(io::Error),
    /// The operator wants an address of ours that this machine does not have, or cannot use.
    #[error("cannot connect from {ip}: {}", reason(.error))]
    Source {
        /// The address of ours.
        ip: IpAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The proxy itself is not there, or does not want us.
    #[error("the proxy {proxy}: {why}")]
    Proxy {
        /// Which.
        proxy: String,
        /// What is wrong.
        why: String,
    },
    /// The proxy could not connect to the peer.
    #[error("through the proxy: {0}")]
    BehindProxy(String),
}

/// How to reach a peer through a SOCKS5 proxy.
#[derive(Clone, Copy)]
pub struct Through<'a> {
    /// Where it is.
    pub proxy: SocketAddr,
    /// User name and password, where it asks for them.
    pub login: Option<(&'a str, &'a str)>,
    /// The address of ours that the connection to the proxy comes from.
    pub source: Option<IpAddr>,
}

/// Opens a TCP connection, ready for small commands (`TCP_NODELAY`), from a certain address of ours where one is given.
pub async fn dial(
    peer: SocketAddr,
    source: Option<IpAddr>,
    timeout: Duration,
) -> Result<TcpStream, DialError> {
    let connecting = tokio::time::timeout(timeout, connect(peer, source));
    let tcp = connecting.await.map_err(|_| DialError::Timeout(timeout))??;
    tcp.set_nodelay(true).map_err(DialError::Refused)?;
    Ok(tcp)
}

async fn connect(peer: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let Some(ip) = source else { return TcpStream::connect(peer).await.map_err(DialError::Refused) };
    let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(DialError::Refused)?;
    socket.bind(SocketAddr::new(ip, 0)).map_err(|error| DialError::Source { ip, error })?;
    socket.connect(peer).await.map_err(DialError::Refused)
}

/// Opens a connection to a peer through a proxy. The wait for the proxy and the proxy's for the peer are both bounded by
/// `timeout`.
pub async fn dial_through(
    through: Through<'_>,
    peer: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, DialError> {
    let the_proxys = |why: String| DialError::Proxy { proxy: through.proxy.to_string(), why };
    let dialled = dial(through.proxy, through.source, timeout).await;
    let tcp = dialled.map_err(|error| the_proxys(error.to_string()))?;
    let asking = async {
        match through.login {
            Some((name, password)) => {
                Socks5Stream::connect_with_password_and_socket(tcp, peer, name, password).await
            }
            None => Socks5Stream::connect_with_socket(tcp, peer).await,
        }
    };
    let asked = tokio::time::timeout(timeout, asking).await.map_err(|_| DialError::Timeout(timeout))?;
    asked.map(Socks5Stream::into_inner).map_err(|error| match error {
        // RFC 1928 §6: what its replies say about the peer, or the way there.
        SocksError::GeneralSocksServerFailure
        | SocksError::ConnectionNotAllowedByRuleset
        | SocksError::NetworkUnreachable
        | SocksError::HostUnreachable
        | SocksError::ConnectionRefused
        | SocksError::TtlExpired
        | SocksError::AddressTypeNotSupported => DialError::BehindProxy(error.to_string().to_lowercase()),
        SocksError::PasswordAuthFailure(_) => the_proxys("wrong user name or password".into()),
        SocksError::NoAcceptableAuthMethods if through.login.is_none() => {
            the_proxys("it wants a user name and password".into())
        }
        SocksError::Io(error) => the_proxys(reason(&error)),
        other => the_proxys(other.to_string().to_lowercase()),
    })
}

/// What the system says, without its number.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_opened_or_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = dial(address, None, Duration::from_secs(5)).await.unwrap();
        assert!(tcp.nodelay().unwrap());
        drop((tcp, listener));
        let refused = dial(address, None, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(refused.to_string(), "connection refused");
    }

    #[tokio::test]
    async fn connections_come_from_the_address_that_was_asked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ours: IpAddr = "127.0.0.77".parse().unwrap();
        let tcp = dial(address, Some(ours), Duration::from_secs(5)).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), ours);
        drop(tcp);
        // RFC 5737: documentation, never an address of a machine.
        let not_ours = "192.0.2.1".parse().unwrap();
        let error = dial(address, Some(not_ours), Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot connect from 192.0.2.1: "), "{error}");
    }
}
