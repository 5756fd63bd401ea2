//! Answers GET requests, a few at a time, each on a connection of its own and within seconds: whoever holds a connection
//! open takes nothing from anybody else but one of its places.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::{Error, Result};

/// Connections at the same time.
const PLACES: usize = 32;
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
        let failed = |source: std::io::Error| {
            Error::refused(format!("could not listen on {address}: {source}"))
                .with_hint("Choose another port with --listen, or end the program that has this one.")
                .with_source(source)
        };
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
        let places = Arc::new(Semaphore::new(PLACES));
        // Dropped with this future, and every connection with it.
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = self.listener.accept().await else {
                // No descriptor is left, most likely: it is others who have to give some back.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let answer = Arc::clone(&answer);
            connections.spawn(async move {
                let service = service_fn(move |request| serve(Arc::clone(&answer), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_LIMIT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // However it ends, it concerns only who asked.
                let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
                drop(place);
            });
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
