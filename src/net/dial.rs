//! Opening connections. Every way out goes through [`dial`]; a proxy will stand here too.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The peer did not answer in time.
    #[error("connection timed out after {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The peer or the network refused.
    #[error("{}", reason(.0))]
    Refused(io::Error),
}

/// Opens a TCP connection, ready for small commands (`TCP_NODELAY`).
pub async fn dial(peer: SocketAddr, timeout: Duration) -> Result<TcpStream, DialError> {
    let connecting = tokio::time::timeout(timeout, TcpStream::connect(peer));
    let tcp = connecting.await.map_err(|_| DialError::Timeout(timeout))?.map_err(DialError::Refused)?;
    tcp.set_nodelay(true).map_err(DialError::Refused)?;
    Ok(tcp)
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
        let tcp = dial(address, Duration::from_secs(5)).await.unwrap();
        assert!(tcp.nodelay().unwrap());
        drop((tcp, listener));
        let refused = dial(address, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(refused.to_string(), "connection refused");
    }
}
