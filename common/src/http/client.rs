//! One request, one answer; certificates as the operating system trusts them. No redirects are followed and no proxy is
//! asked: a ping that goes elsewhere than it was told to is no ping.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Uri,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{Error, Result, postgres::Secret};

/// Most bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Sends a body of this content type.
    Post {
        /// Such as `application/json`.
        content_type: &'static str,
        /// The body.
        body: String,
    },
}

/// Sends a request and waits for an answer of 200 to 299, all within `limit`.
///
/// # Errors
/// Usage for a text that is no http or https URL; failed for anything else, naming the host alone.
pub async fn send(url: &Secret, method: Method, limit: Duration) -> Result<()> {
    send_trusting(system_roots, url, method, limit).await
}

async fn send_trusting(
    roots: impl FnOnce() -> RootCertStore,
    url: &Secret,
    method: Method,
    limit: Duration,
) -> Result<()> {
    let no_url = || Error::usage("the URL is not one of http or https");
    let uri: Uri = url.expose().trim().parse().map_err(|_| no_url())?;
    let host = uri.host().ok_or_else(no_url)?.trim_matches(['[', ']']).to_owned();
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(no_url()),
    };
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let failed = |problem: String| {
        Error::failed(format!("could not reach {host}: {problem}")).with_hint(
            "Look whether the service is up, and whether this machine may reach it (no proxy is used).",
        )
    };
    let exchange = async {
        let stream =
            TcpStream::connect((host.as_str(), port)).await.map_err(|error| failed(error.to_string()))?;
        let status = if is_tls {
            let name = ServerName::try_from(host.clone()).map_err(|error| failed(error.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(roots())?));
            let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
            exchange(stream, &uri, method).await
        } else {
            exchange(stream, &uri, method).await
        };
        status.map_err(failed)
    };
    let status = tokio::time::timeout(limit, exchange)
        .await
        .map_err(|_| failed(format!("no answer within {} s", limit.as_secs())))??;
    if (200..300).contains(&status) {
        Ok(())
    } else {
        Err(Error::failed(format!("{host} answered with status {status}")).with_hint(match status {
            500.. => "The service itself failed: look at its log or its status page.",
            _ => "Look whether the URL is still right; redirects are not followed.",
        }))
    }
}

async fn exchange<S>(stream: S, uri: &Uri, method: Method) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = hyper::Request::builder()
        .uri(target)
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(USER_AGENT, concat!("safe-run/", env!("CARGO_PKG_VERSION")));
    let body = match method {
        Method::Get => Full::new(Bytes::new()),
        Method::Post { content_type, body } => {
            request = request.method("POST").header(CONTENT_TYPE, content_type);
            Full::new(Bytes::from(body))
        }
    };
    let request = request.body(body).map_err(|_| "the URL can't be sent".to_owned())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    let status = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            // Read to its end, so that the service sees an orderly one; what it says does not matter.
            let _ = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
            Ok(status)
        }
        Err(problem) => Err(problem),
    };
    driver.abort();
    status
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Single certificates of a system's store may be unreadable; none at all is found out by the handshake.
    for certificate in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(certificate);
    }
    roots
}

fn tls(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed(format!("could not prepare TLS: {error}")).with_source(error))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Answers everything with this status over TLS, with a certificate for localhost that it is its own authority of.
    async fn server(status: u16) -> (u16, RootCertStore) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (port, roots)
    }

    #[tokio::test]
    async fn tls_is_verified_and_nothing_but_the_host_is_shown() {
        let (port, roots) = server(200).await;
        let secret = |host: &str| Secret::new(format!("https://{host}:{port}/ping/secret?token=secret"));
        send_trusting(|| roots.clone(), &secret("localhost"), Method::Get, LIMIT).await.unwrap();
        for (roots, host) in [(RootCertStore::empty(), "localhost"), (roots, "127.0.0.1")] {
            let error = send_trusting(|| roots, &secret(host), Method::Get, LIMIT).await.unwrap_err();
            assert!(error.message().starts_with(&format!("could not reach {host}: ")), "{error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn only_success_is_success() {
        for (status, is_ok) in [(200, true), (204, true), (302, false), (404, false), (500, false)] {
            let (port, roots) = server(status).await;
            let url = Secret::new(format!("https://localhost:{port}/"));
            let sent = send_trusting(|| roots, &url, Method::Get, LIMIT).await;
            assert_eq!(sent.is_ok(), is_ok, "{status}: {sent:?}");
        }
        for url in ["", "ftp://localhost/", "localhost", "http://", "file:///etc/passwd"] {
            let error = send(&Secret::new(url), Method::Get, LIMIT).await.unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{url}");
        }
    }
}
