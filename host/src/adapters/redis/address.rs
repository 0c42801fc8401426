//! Where Redis is: one server, a master that Sentinels watch, or a cluster.
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST[:PORT][/DB]                       one server
//! redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DB]     the master of that name; the hosts are Sentinels
//! redis+cluster://[USER:PASSWORD@]HOST[:PORT],…                  a cluster; the hosts are some of its nodes
//! rediss…                                                        the same over TLS
//! ```
//!
//! **Invariant:** what an address shows of itself ([`Address`]'s `Display`) never holds a password.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo, RedisError};
use thiserror::Error;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Servers that an address may name.
const SEEDS_MAX: usize = 64;

/// Why a text is no address of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It begins otherwise.
    #[error(
        "it begins with none of `redis://`, `rediss://`, `redis+sentinel://`, `rediss+sentinel://`, `redis+cluster://`, `rediss+cluster://`"
    )]
    Scheme,
    /// No host, or more of them than the form takes.
    #[error("{0}")]
    Form(&'static str),
    /// A port that is none.
    #[error("`{0}` is no port")]
    Port(String),
}

/// How servers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is one.
    Single,
    /// Sentinels name the master.
    Sentinel,
    /// Any node names those of all slots.
    Cluster,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// A parsed address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    kind: Kind,
    is_tls: bool,
    /// `USER:PASSWORD@`, as it was written; empty: none.
    credentials: String,
    seeds: Vec<Server>,
    master: String,
    db: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tls, kind) = (
            if self.is_tls { "s" } else { "" },
            match self.kind {
                Kind::Single => "",
                Kind::Sentinel => "+sentinel",
                Kind::Cluster => "+cluster",
            },
        );
        let seeds: Vec<String> = self.seeds.iter().map(Server::to_string).collect();
        write!(f, "redis{tls}{kind}://{}", seeds.join(","))?;
        for part in [&self.master, &self.db].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "/{part}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(AddressError::Scheme)?;
        let (is_tls, kind) = match scheme {
            "redis" => (false, Kind::Single),
            "rediss" => (true, Kind::Single),
            "redis+sentinel" => (false, Kind::Sentinel),
            "rediss+sentinel" => (true, Kind::Sentinel),
            "redis+cluster" => (false, Kind::Cluster),
            "rediss+cluster" => (true, Kind::Cluster),
            _ => return Err(AddressError::Scheme),
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match place.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), place),
        };
        let port = if kind == Kind::Sentinel { SENTINEL_PORT } else { PORT };
        let seeds: Vec<Server> = hosts.split(',').map(|host| server(host, port)).collect::<Result<_, _>>()?;
        if seeds.len() > SEEDS_MAX || (kind == Kind::Single && seeds.len() > 1) {
            return Err(AddressError::Form("it names too many hosts: `redis://` takes one, the others at most 64"));
        }
        let path = path.trim_end_matches('/');
        let (master, db) = match (kind, path.split_once('/')) {
            (Kind::Sentinel, Some((master, db))) => (master, db),
            (Kind::Sentinel, None) => (path, ""),
            (Kind::Single | Kind::Cluster, Some(_)) => return Err(AddressError::Form("what follows the host is the number of a database")),
            (Kind::Single | Kind::Cluster, None) => ("", path),
        };
        if kind == Kind::Sentinel && master.is_empty() {
            return Err(AddressError::Form("it does not name the master: `redis+sentinel://HOST,HOST/MASTER`"));
        }
        if !db.bytes().all(|byte| byte.is_ascii_digit()) || (kind == Kind::Cluster && !db.trim_start_matches('0').is_empty()) {
            return Err(AddressError::Form("a database is a number, and a cluster has only number 0"));
        }
        let (master, db) = (master.to_owned(), db.to_owned());
        Ok(Self { kind, is_tls, credentials, seeds, master, db })
    }
}

fn server(text: &str, port: u16) -> Result<Server, AddressError> {
    let (host, given) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(AddressError::Form("it names no host"));
    }
    let port = given.map_or(Ok(port), |given| given.parse().map_err(|_| AddressError::Port(given.chars().take(20).collect())))?;
    Ok(Server { host: host.to_owned(), port })
}

impl Address {
    /// Returns how servers are found.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether connections are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The servers it names.
    pub(super) fn seeds(&self) -> &[Server] {
        &self.seeds
    }

    /// The name of the master that Sentinels know.
    pub(super) fn master(&self) -> &str {
        &self.master
    }

    /// How to connect to a server of data, with the address's own credentials.
    pub(super) fn to(&self, server: &Server) -> Result<ConnectionInfo, RedisError> {
        format!("{}://{}{server}/{}", self.scheme(), self.credentials, self.db).as_str().into_connection_info()
    }

    /// How to connect to a Sentinel: without credentials.
    pub(super) fn to_sentinel(&self, server: &Server) -> Result<ConnectionInfo, RedisError> {
        format!("{}://{server}/", self.scheme()).as_str().into_connection_info()
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls { "rediss" } else { "redis" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    #[test]
    fn each_form_is_read_and_shown_without_its_password() {
        for (text, shown, kind) in [
            ("redis://localhost", "redis://localhost:6379", Kind::Single),
            ("rediss://me:secret@db.example:7000/2", "rediss://db.example:7000/2", Kind::Single),
            ("redis+sentinel://a,b:7,[::1]:9/main", "redis+sentinel://a:26379,b:7,[::1]:9/main", Kind::Sentinel),
            ("redis+sentinel://:p@a/main/3", "redis+sentinel://a:26379/main/3", Kind::Sentinel),
            ("redis+cluster://u:p%40@a:1,b:2", "redis+cluster://a:1,b:2", Kind::Cluster),
        ] {
            let address = read(text).expect(text);
            assert_eq!((address.to_string().as_str(), address.kind()), (shown, kind), "{text}");
            assert!(!format!("{address:?}").contains("secret"));
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, word) in [
            ("localhost:6379", "begins"),
            ("http://a", "begins"),
            ("redis://", "no host"),
            ("redis://a,b", "too many"),
            ("redis://a:notaport", "port"),
            ("redis://a/one", "number"),
            ("redis://a/1/2", "number"),
            ("redis+sentinel://a", "master"),
            ("redis+cluster://a/1", "cluster"),
        ] {
            let why = read(text).expect_err(text).to_string();
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn credentials_go_to_servers_of_data_only() {
        let address = read("redis+sentinel://me:secret@a/main").expect("an address");
        let server = &address.seeds()[0];
        let data = address.to(server).expect("it connects");
        assert_eq!((data.redis_settings().username(), data.redis_settings().password()), (Some("me"), Some("secret")));
        assert_eq!(address.to_sentinel(server).expect("it connects").redis_settings().password(), None);
    }
}
