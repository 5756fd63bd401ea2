//! The lists of hosts, addresses and ports, as servers.

use std::path::PathBuf;

use super::invalid;
use crate::{
    error::{Error, Result},
    postgres::settings::{DEFAULT_PORT, Place, Server},
};

/// Where libpq builds look for the server when no host is given: Debian's and Red Hat's folder, upstream's, and TCP for
/// builds without either.
const DEFAULT_HOSTS: [&str; 3] = ["/var/run/postgresql", "/tmp", "localhost"];

/// The lists of hosts, addresses and ports → servers, with libpq's rules for their lengths.
pub(super) fn servers(host: Option<&str>, address: Option<&str>, port: Option<&str>) -> Result<Vec<Server>> {
    let hosts: Vec<&str> = host.map(|list| list.split(',').collect()).unwrap_or_default();
    let addresses: Vec<&str> = address.map(|list| list.split(',').collect()).unwrap_or_default();
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(Error::usage(format!(
            "{} host names do not match {} hostaddr values",
            hosts.len(),
            addresses.len()
        ))
        .with_hint("Give one hostaddr for each host, separated by commas."));
    }
    let count = hosts.len().max(addresses.len());
    let mut ports = Vec::new();
    for text in port.unwrap_or_default().split(',') {
        ports.push(match text.trim() {
            "" => DEFAULT_PORT,
            text => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                Error::usage("invalid port number in the connection settings").with_hint(
                    "A port is a number from 1 to 65535. In a URL, percent-encode : and / and @ of a password.",
                )
            })?,
        });
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::usage(format!("{} port numbers do not match {count} hosts", ports.len()))
            .with_hint("Give one port for all hosts, or one for each, separated by commas."));
    }
    let port_of = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    if count == 0 {
        return DEFAULT_HOSTS.iter().map(|host| server(host, "", port_of(0))).collect();
    }
    let mut servers = Vec::new();
    for index in 0..count {
        let host = hosts.get(index).copied().unwrap_or_default().trim();
        let address = addresses.get(index).copied().unwrap_or_default().trim();
        if host.is_empty() && address.is_empty() {
            for host in DEFAULT_HOSTS {
                servers.push(server(host, "", port_of(index))?);
            }
        } else {
            servers.push(server(host, address, port_of(index))?);
        }
    }
    Ok(servers)
}

pub(super) fn server(host: &str, address: &str, port: u16) -> Result<Server> {
    if host.starts_with('@') {
        return Err(Error::usage("sockets in the abstract namespace are not supported")
            .with_hint("Name the directory of the server's socket, such as /var/run/postgresql."));
    }
    let place = if host.starts_with('/') {
        Place::Socket(PathBuf::from(host))
    } else {
        let parsed = match address {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("hostaddr", text, "an IPv4 or IPv6 address"))?),
        };
        let name = if host.is_empty() { address } else { host };
        Place::Tcp { host: name.to_owned(), address: parsed }
    };
    Ok(Server { place, port })
}
