//! Answers GET requests, a few at a time, each on a connection of its own and within seconds.
//!
//! A new connection is always taken. Where there are too many, one that has not yet asked for anything gives way, the oldest
//! of the address that has the most: whoever holds connections open takes none from a probe, which asks at once.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

use crate::{Error, Result};

/// Connections at the same time, in all and of one address: each costs a descriptor and some kilobytes.
const PLACES: usize = 64;
const PLACES_OF_ONE_ADDRESS: usize = 32;
/// How long a request may take to arrive, and a connection may last in all.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Such as `/metrics`, without a query.
    pub path: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// The header `Host`, without a port.
    pub host: Option<String>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// A line of text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        let body = body.into() + "\n";
        Self { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body }
    }
}

/// A connection that is there.
#[derive(Debug)]
struct Place {
    address: IpAddr,
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// The connections, the oldest first.
#[derive(Debug, Default)]
struct Places(Mutex<Vec<Place>>);

impl Places {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a connection from `address`.
    fn make_room(&self, address: IpAddr) {
        let mut places = self.lock();
        places.retain(|place| !place.task.is_finished());
        while let Some(number) = Self::too_many(&places, address) {
            let place = places.remove(number);
            place.task.abort();
        }
    }

    /// Which one has to go, if one has to.
    fn too_many(places: &[Place], address: IpAddr) -> Option<usize> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for place in places {
            *counts.entry(place.address).or_default() += 1;
        }
        let own = counts.get(&address).copied().unwrap_or(0);
        let of = if own >= PLACES_OF_ONE_ADDRESS {
            address
        } else if places.len() >= PLACES {
            counts.into_iter().max_by_key(|(_, count)| *count)?.0
        } else {
            return None;
        };
        let oldest = |may_have_asked: bool| {
            places.iter().position(|place| {
                place.address == of && (may_have_asked || !place.has_asked.load(Ordering::Relaxed))
            })
        };
        oldest(false).or_else(|| oldest(true))
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// Refused when it is taken already, or may not be.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |source: std::io::Error| not_taken(address, source);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that the system chose if it was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the future is dropped.
    pub async fn run<F, R>(self, answer: F)
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let answer = Arc::new(answer);
        let places = Places::default();
        // Dropped with this future, and every connection with it.
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, peer)) = self.listener.accept().await else {
                // No descriptor is left, most likely: it is others who have to give some back.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            places.make_room(peer.ip());
            let answer = Arc::clone(&answer);
            let has_asked = Arc::new(AtomicBool::new(false));
            let asks = Arc::clone(&has_asked);
            let task = connections.spawn(async move {
                let service = service_fn(move |request| {
                    asks.store(true, Ordering::Relaxed);
                    serve(Arc::clone(&answer), request)
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_LIMIT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // However it ends, it concerns only who asked.
                let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
            });
            places.lock().push(Place { address: peer.ip(), has_asked, task });
        }
    }
}

async fn serve<F, R>(
    answer: Arc<F>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Request) -> R,
    R: Future<Output = Reply>,
{
    let is_head = request.method() == hyper::Method::HEAD;
    let reply = if is_head || request.method() == hyper::Method::GET {
        let header = |name: HeaderName| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let host = header(HOST).and_then(|host| {
            host.parse::<hyper::http::uri::Authority>().ok().map(|host| host.host().to_owned())
        });
        let asked =
            Request { path: request.uri().path().to_owned(), authorization: header(AUTHORIZATION), host };
        answer(asked).await
    } else {
        Reply::text(405, "only GET is answered here")
    };
    let length = reply.body.len();
    let mut response = Response::builder()
        .status(reply.status)
        .header("content-type", reply.content_type)
        .header("cache-control", "no-store")
        .header("x-content-type-options", "nosniff");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let body = if is_head {
        response = response.header(CONTENT_LENGTH, length);
        Bytes::new()
    } else {
        Bytes::from(reply.body)
    };
    Ok(response.body(Full::new(body)).unwrap_or_else(|_| Response::new(Full::new(Bytes::new()))))
}

/// Why the address could not be had.
fn not_taken(address: SocketAddr, source: std::io::Error) -> Error {
    let hint = match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            "Choose another port with --listen, or end the program that has this one."
        }
        std::io::ErrorKind::PermissionDenied => {
            "Choose a port from 1024 on with --listen, or run as a user who may have this one."
        }
        _ => "Give --listen an address of this machine, such as 127.0.0.1:9187.",
    };
    Error::refused(format!("could not listen on {address}: {source}")).with_hint(hint).with_source(source)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_probe_is_answered_while_two_hundred_clients_hold_their_connections() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let running = tokio::spawn(server.run(|_| async { Reply::text(200, "ok") }));
        let mut slow = Vec::new();
        for number in 0..200 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some say nothing, some begin a request and never end it.
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /health HTTP/1.1\r\nx: ").await;
            }
            slow.push(stream);
            if number % 20 == 0 {
                assert!(ask(address).await.ends_with("ok\n"), "after {number}");
            }
        }
        for _ in 0..20 {
            assert!(ask(address).await.ends_with("ok\n"));
        }
        // Those that are not too many are there still: nobody was thrown out for a probe alone.
        let mut there = 0;
        for stream in &mut slow {
            there += usize::from(
                stream
                    .try_read(&mut [0; 64])
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            );
        }
        assert!((1..=PLACES_OF_ONE_ADDRESS).contains(&there), "{there}");
        drop(slow);
        running.abort();
    }

    #[test]
    fn an_address_that_can_not_be_had_is_told_with_another_that_can() {
        let told = |kind: std::io::ErrorKind| not_taken("127.0.0.1:80".parse().unwrap(), kind.into());
        let error = told(std::io::ErrorKind::PermissionDenied);
        assert_eq!(
            error.hint(),
            Some("Choose a port from 1024 on with --listen, or run as a user who may have this one.")
        );
        assert_eq!(error.kind(), crate::ErrorKind::Refused);
        let other = told(std::io::ErrorKind::AddrNotAvailable);
        assert_eq!(other.hint(), Some("Give --listen an address of this machine, such as 127.0.0.1:9187."));
    }

    #[tokio::test]
    async fn who_has_most_and_has_not_asked_gives_way() {
        let places = Places::default();
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let mut tasks = JoinSet::new();
        let mut add = |address, asked| {
            places.make_room(address);
            let task = tasks.spawn(std::future::pending::<()>());
            let has_asked = Arc::new(AtomicBool::new(asked));
            places.lock().push(Place { address, has_asked, task });
        };
        add(a, true);
        for _ in 0..PLACES_OF_ONE_ADDRESS + 5 {
            add(a, false);
        }
        add(b, false);
        let count = |address| places.lock().iter().filter(|place| place.address == address).count();
        assert_eq!((count(a), count(b)), (PLACES_OF_ONE_ADDRESS, 1));
        assert!(places.lock()[0].has_asked.load(Ordering::Relaxed), "what is being answered stays");
        for number in 0..PLACES {
            let others: IpAddr = format!("198.51.100.{number}").parse().unwrap();
            places.make_room(others);
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            places.lock().push(Place { address: others, has_asked: Arc::default(), task });
        }
        assert_eq!(places.lock().len(), PLACES);
        assert!(count(a) < PLACES_OF_ONE_ADDRESS);
        for place in places.lock().iter() {
            place.task.abort();
        }
    }
}
