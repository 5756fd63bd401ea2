//! Settings as a URL, and as the environment of a child.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ConnectionSettings, DEFAULT_PORT, Place, Server};
use crate::postgres::{connection_string::KEYWORDS, driver_url, secret::Secret};

/// RFC 3986's unreserved characters stay.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Within `[…]` colons stay too.
const IN_BRACKETS: &AsciiSet = &UNRESERVED.remove(b':');

/// In a query value, slashes, commas and colons stay: sockets and host lists remain readable.
pub(crate) const IN_QUERY: &AsciiSet = &UNRESERVED.remove(b'/').remove(b',').remove(b':');

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

impl ConnectionSettings {
    /// A `postgresql://` URL without any password. Resolving it gives the same settings again.
    pub fn redacted_url(&self) -> String {
        self.url("postgresql", None, &driver_url::parameters("postgresql", &self.keywords))
    }

    /// The URL for a child's DATABASE_URL: with the password, the scheme as it was given (`postgresql+psycopg2`), the
    /// parameters as its driver takes them, and those that only the child understands.
    pub fn url_for_child(&self) -> Secret {
        let scheme = self.scheme.as_deref().unwrap_or("postgresql");
        let mut parameters = driver_url::parameters(scheme, &self.keywords);
        parameters.extend(self.foreign.iter().cloned());
        Secret::new(self.url(scheme, self.password_for(&self.servers[0]), &parameters))
    }

    /// The PG* variables that make libpq in a child connect as we do; see [`VARIABLES_TO_CLEAR`].
    ///
    /// All values are secrets by type: one of them is the password. With the usual places and no host, PGHOST is left
    /// out; a connected session's settings name the place that answered.
    pub fn child_environment(&self) -> Vec<(&'static str, Secret)> {
        let mut variables = Vec::new();
        if !self.servers_are_default {
            variables.push(("PGHOST", Secret::new(self.join(Server::host_text))));
            if let Some(addresses) = self.addresses() {
                variables.push(("PGHOSTADDR", Secret::new(addresses)));
            }
        }
        variables.push(("PGPORT", Secret::new(self.ports())));
        variables.push(("PGUSER", Secret::new(&self.user)));
        variables.push(("PGDATABASE", Secret::new(&self.database)));
        if let Some(password) = self.password_for(&self.servers[0]) {
            variables.push(("PGPASSWORD", password.clone()));
        }
        for keyword in KEYWORDS {
            if let (Some(variable), Some(value)) = (keyword.variable, self.keywords.get(keyword.name)) {
                variables.push((variable, Secret::new(value)));
            }
        }
        variables
    }

    fn join(&self, part: impl Fn(&Server) -> String) -> String {
        self.servers.iter().map(part).collect::<Vec<_>>().join(",")
    }

    fn ports(&self) -> String {
        // One number stands for all, and libpq's own places may be fewer than ours.
        let first = self.servers[0].port;
        if self.servers.iter().all(|server| server.port == first) {
            first.to_string()
        } else {
            self.join(|server| server.port.to_string())
        }
    }

    fn addresses(&self) -> Option<String> {
        self.servers
            .iter()
            .any(|server| server.address_text().is_some())
            .then(|| self.join(|server| server.address_text().unwrap_or_default()))
    }

    fn url(&self, scheme: &str, password: Option<&Secret>, parameters: &[(String, String)]) -> String {
        let mut url = format!("{scheme}://{}", encode(&self.user));
        if let Some(password) = password {
            url.push(':');
            url.push_str(&encode(password.expose()));
        }
        url.push('@');
        let mut query: Vec<(&str, String)> = Vec::new();
        let all_tcp = self.servers.iter().all(|server| matches!(server.place, Place::Tcp { .. }));
        if self.servers_are_default {
            if self.servers[0].port != DEFAULT_PORT {
                query.push(("port", self.servers[0].port.to_string()));
            }
        } else if all_tcp {
            url.push_str(&self.join(|server| {
                let host = server.host_text();
                // Percent-encoded brackets' content keeps a zone (fe80::1%eth0) readable for libpq.
                let host = if host.contains(':') {
                    format!("[{}]", utf8_percent_encode(&host, IN_BRACKETS))
                } else {
                    encode(&host)
                };
                format!("{host}:{}", server.port)
            }));
            query.extend(self.addresses().map(|addresses| ("hostaddr", addresses)));
        } else {
            url.push_str(&self.before_socket.as_deref().map(encode).unwrap_or_default());
            query.push(("host", self.join(Server::host_text)));
            query.extend(self.addresses().map(|addresses| ("hostaddr", addresses)));
            query.push(("port", self.ports()));
        }
        url.push('/');
        url.push_str(&encode(&self.database));
        query.extend(parameters.iter().map(|(key, value)| (key.as_str(), value.clone())));
        for (index, (key, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(&encode(key));
            url.push('=');
            url.push_str(&utf8_percent_encode(value, IN_QUERY).to_string());
        }
        url
    }
}
