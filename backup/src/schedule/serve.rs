//! What is answered over HTTP, and to whom.
//!
//! `/health` says that the process lives and answers everybody. The rest names databases and sizes: without a token it is
//! answered on the loopback interface only, and only to who asked for it by a loopback name, so that no web page that a
//! browser on this machine shows can read it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use common::{
    Error, Result,
    digest::constant_time_eq,
    http::{Reply, Request, Server},
    postgres::Secret,
};

use super::{
    clock::Clock,
    daemon::Shared,
    job::Job,
    metrics, page,
    status::{self, Cache},
};

/// How long the database may take to answer `/health/db`.
const DATABASE_LIMIT: Duration = Duration::from_secs(5);

/// Reads a token from the first line of a file.
pub fn read_token(path: &Path) -> Result<Secret> {
    let text = common::input::read_text(path).map_err(|source| Error::io("read", path, source))?;
    let token = text.lines().next().unwrap_or("").trim();
    if token.len() < 16 {
        return Err(Error::usage(format!("the token in {} is shorter than 16 characters", path.display()))
            .with_hint("Make one with: openssl rand -hex 32"));
    }
    Ok(Secret::new(token))
}

/// Takes the address, if the token allows it.
///
/// # Errors
/// Refused for an address that others can reach, without a token.
pub async fn bind(address: &str, token: Option<&Secret>) -> Result<Server> {
    let invalid = |problem: String| {
        Error::usage(format!("--listen {}: {problem}", common::ident::printable(address)))
            .with_hint("Write it as 127.0.0.1:9187 or [::1]:9187.")
    };
    let mut addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(address).await.map_err(|source| invalid(source.to_string()))?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let address = *addresses.first().ok_or_else(|| invalid("no such address".to_owned()))?;
    if !address.ip().is_loopback() && token.is_none() {
        return Err(Error::refused(format!(
            "--listen {address} can be reached by others, and there is no token"
        ))
        .with_hint("Give --token-file, or listen on 127.0.0.1 behind a proxy that asks for a password."));
    }
    Server::bind(address).await
}

/// Answers requests until the future is dropped.
pub async fn run(
    server: Server,
    token: Option<Secret>,
    shared: Shared,
    jobs: impl Fn() -> Vec<Arc<Job>> + Send + Sync + 'static,
    clock: Clock,
) {
    let (token, jobs, cache) = (Arc::new(token), Arc::new(jobs), Arc::new(Cache::default()));
    server
        .run(move |request| {
            let (token, jobs, shared) = (Arc::clone(&token), Arc::clone(&jobs), Arc::clone(&shared));
            let cache = Arc::clone(&cache);
            async move {
                if request.path == "/health" {
                    return Reply::text(200, "ok");
                }
                if let Some(refusal) = refuse(&request, token.as_ref().as_ref()) {
                    return refusal;
                }
                match request.path.as_str() {
                    "/health/db" => database_health(&jobs()).await,
                    "/metrics" | "/" => look(&request.path, &shared, cache, clock).await,
                    _ => Reply::text(404, "there are /, /metrics, /health and /health/db"),
                }
            }
        })
        .await;
}

fn refuse(request: &Request, token: Option<&Secret>) -> Option<Reply> {
    if is_allowed(request, token) {
        return None;
    }
    if token.is_none() {
        return Some(Reply::text(403, "ask by a loopback name, such as localhost"));
    }
    let mut reply = Reply::text(401, "the token is missing or wrong");
    reply.headers.push(("www-authenticate", "Basic realm=\"backup schedule\""));
    Some(reply)
}

async fn look(path: &str, shared: &Shared, cache: Arc<Cache>, clock: Clock) -> Reply {
    let live = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let now = clock.now();
    let is_page = path == "/";
    let rendered = tokio::task::spawn_blocking(move || {
        let status = status::gather(live, now, &cache);
        if is_page { page::render(&status) } else { metrics::render(&status) }
    });
    match rendered.await {
        Ok(body) if is_page => Reply {
            status: 200,
            content_type: "text/html; charset=utf-8",
            headers: vec![
                ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"),
                ("referrer-policy", "no-referrer"),
            ],
            body,
        },
        Ok(body) => Reply {
            status: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            headers: Vec::new(),
            body,
        },
        Err(error) => Reply::text(500, format!("could not look: {error}")),
    }
}

fn is_allowed(request: &Request, token: Option<&Secret>) -> bool {
    let Some(token) = token else {
        let name = request.host.as_deref().unwrap_or("");
        let ip = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        return name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback());
    };
    let Some(header) = &request.authorization else { return false };
    let Some((scheme, given)) = header.split_once(' ') else { return false };
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return constant_time_eq(given.as_bytes(), token.expose().as_bytes());
    }
    // A browser asks its user for a name and a password: any name will do.
    scheme.eq_ignore_ascii_case("basic")
        && decode_base64(given)
            .and_then(|bytes| {
                let colon = bytes.iter().position(|byte| *byte == b':')?;
                Some(constant_time_eq(&bytes[colon + 1..], token.expose().as_bytes()))
            })
            .unwrap_or(false)
}

/// RFC 4648, section 4.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

async fn database_health(jobs: &[Arc<Job>]) -> Reply {
    let (mut status, mut lines) = (200, Vec::new());
    let mut set = tokio::task::JoinSet::new();
    for (index, job) in jobs.iter().enumerate() {
        let job = Arc::clone(job);
        set.spawn(async move { (index, check_database(&job).await) });
    }
    let mut results: Vec<(usize, Result<()>)> = set.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    for (index, result) in results {
        let name = &jobs[index].name;
        match result {
            Ok(()) => lines.push(format!("{name}: ok")),
            Err(error) => {
                status = 503;
                lines.push(format!("{name}: {error}"));
            }
        }
    }
    Reply::text(status, lines.join("\n"))
}

async fn check_database(job: &Job) -> Result<()> {
    let connected = async {
        let session = job.connection().await?.connect().await?;
        session.close().await
    };
    tokio::time::timeout(DATABASE_LIMIT, connected)
        .await
        .unwrap_or_else(|_| Err(Error::busy(format!("no connection within {} s", DATABASE_LIMIT.as_secs()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, authorization: Option<&str>) -> Request {
        Request {
            path: "/".into(),
            authorization: authorization.map(str::to_owned),
            host: Some(host.to_owned()),
        }
    }

    #[test]
    fn only_who_may_is_answered() {
        let token = Secret::new("correct-horse-battery");
        for (authorization, expected) in [
            (None, false),
            (Some("Bearer correct-horse-battery"), true),
            (Some("bearer correct-horse-battery"), true),
            (Some("Bearer correct-horse-batterx"), false),
            (Some("Bearer "), false),
            (Some("correct-horse-battery"), false),
            // any:correct-horse-battery
            (Some("Basic YW55OmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ=="), true),
            // any:wrong
            (Some("Basic YW55Ondyb25n"), false),
            (Some("Basic !!!"), false),
            (Some("Basic YW55"), false),
        ] {
            assert_eq!(
                is_allowed(&asked("backup.example", authorization), Some(&token)),
                expected,
                "{authorization:?}"
            );
        }
        for (host, expected) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("[::1]", true),
            ("attacker.example", false),
            ("127.0.0.1.attacker.example", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(&asked(host, None), None), expected, "{host}");
        }
    }

    #[test]
    fn base64_decodes() {
        for (text, expected) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(decode_base64(text).unwrap(), expected.as_bytes());
        }
        assert!(decode_base64("Zm 9v").is_none());
    }
}
