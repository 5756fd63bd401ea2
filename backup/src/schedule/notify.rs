//! Tells systemd how the scheduler is (sd_notify(3)): READY, STATUS, WATCHDOG, RELOADING, STOPPING. Does nothing elsewhere.

use std::{os::unix::net::UnixDatagram, time::Duration};

use common::{Error, Result, cli::process};

/// The socket that `Type=notify` gives, if any.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Looks at NOTIFY_SOCKET and WATCHDOG_USEC.
    pub fn from_environment() -> Result<Self> {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(Self::default());
        };
        let connected = UnixDatagram::unbound().and_then(|socket| {
            connect(&socket, &address)?;
            // A manager that does not read must not stop the backups.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = connected.map_err(|source| {
            Error::failed(format!("could not reach systemd at {}: {source}", address.display()))
                .with_hint("Unset NOTIFY_SOCKET, or start the scheduler as a service of Type=notify.")
                .with_source(source)
        })?;
        let microseconds = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        // Half of the time that systemd waits, as it recommends.
        let watchdog = microseconds.filter(|_| is_ours).map(|time| Duration::from_micros(time / 2));
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// How often the watchdog wants to hear.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends lines such as `READY=1`.
    pub fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // It is only told: a backup goes on without it.
            let _ = socket.send(state.as_bytes());
        }
    }

    /// A reload begins; systemd wants to know when.
    pub fn reloading(&self) {
        let now = process::monotonic().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }
}

#[cfg(target_os = "linux")]
fn connect(socket: &UnixDatagram, address: &std::ffi::OsStr) -> std::io::Result<()> {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr},
    };
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?),
        None => socket.connect(address),
    }
}

#[cfg(not(target_os = "linux"))]
fn connect(socket: &UnixDatagram, address: &std::ffi::OsStr) -> std::io::Result<()> {
    socket.connect(address)
}
