//! The socket to a server: dialled here and handed to the driver, so that [`super::tap`] can stand between the two.

use std::{
    io,
    net::IpAddr,
    os::fd::AsFd,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::settings::Keepalives;

/// Where a server was reached: enough to reach it once more, for a cancel request.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) address: Address,
    pub(super) port: u16,
    /// The name that TLS verifies.
    pub(super) host: String,
    pub(super) keepalives: Keepalives,
}

/// One address.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Tcp(IpAddr),
    /// The folder of a Unix socket.
    Unix(PathBuf),
}

impl Route {
    /// Opens the socket.
    pub(super) async fn dial(&self) -> io::Result<Wire> {
        match &self.address {
            Address::Unix(folder) => {
                UnixStream::connect(folder.join(format!(".s.PGSQL.{}", self.port))).await.map(Wire::Unix)
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect((*address, self.port)).await?;
                // Small messages go both ways and wait for each other.
                stream.set_nodelay(true)?;
                self.keep_alive(&SockRef::from(&stream))?;
                Ok(Wire::Tcp(stream))
            }
        }
    }

    fn keep_alive(&self, socket: &SockRef<'_>) -> io::Result<()> {
        let keepalives = self.keepalives;
        #[cfg(target_os = "linux")]
        if let Some(limit) = keepalives.user_timeout {
            socket.set_tcp_user_timeout(Some(limit))?;
        }
        if keepalives.enabled {
            socket.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(keepalives.idle)
                    .with_interval(keepalives.interval)
                    .with_retries(keepalives.count),
            )?;
        }
        Ok(())
    }
}

/// An open socket.
#[derive(Debug)]
pub enum Wire {
    /// To a host.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

impl Wire {
    /// A second handle to the same socket.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => {
                let copy = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
                TcpStream::from_std(copy).map(Self::Tcp)
            }
            Self::Unix(stream) => {
                let copy = std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?);
                UnixStream::from_std(copy).map(Self::Unix)
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
