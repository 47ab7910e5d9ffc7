//! Where a runbook may go: the allow-list, and which addresses a name may lead to.
//!
//! Invariant: an address that no entry allows is never connected to, whatever spelling, name or mapping leads to it.

use super::WorldError;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::{Host, Url};

/// Which addresses an entry may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressSpace {
    Public,
    /// Also loopback and private networks.
    Private,
}

/// One entry of the allow-list.
#[derive(Debug, Clone)]
pub(super) struct AllowEntry {
    space: AddressSpace,
    prefix: Url,
}

impl AllowEntry {
    /// Reads one entry of the allow-list.
    ///
    /// # Errors
    ///
    /// Fails when the entry is no URL of http or https that ends at a path; the message has the right form.
    pub fn parse(entry: &str) -> Result<AllowEntry, WorldError> {
        let wrong = |what: &str| {
            WorldError::Invalid(format!(
                "http_allow `{}`: {what}; write scheme, host, port and path, as in `https://api.example.com/v1` or, \
                 for a private address, `private+http://10.0.0.5:8080/`",
                entry.escape_debug()
            ))
        };
        let (space, text) = match entry.strip_prefix("private+") {
            Some(rest) => (AddressSpace::Private, rest),
            None => (AddressSpace::Public, entry),
        };
        let prefix = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(prefix.scheme(), "http" | "https") {
            return Err(wrong("only http and https"));
        }
        if has_userinfo(&prefix) || prefix.query().is_some() || prefix.fragment().is_some() {
            return Err(wrong("no user, query or fragment"));
        }
        Ok(AllowEntry { space, prefix })
    }

    /// The networks that the entry reaches.
    pub fn space(&self) -> AddressSpace {
        self.space
    }

    fn covers(&self, url: &Url) -> bool {
        self.prefix.scheme() == url.scheme()
            && self.prefix.host() == url.host()
            && self.prefix.port_or_known_default() == url.port_or_known_default()
            && under(self.prefix.path(), url.path())
    }
}

/// The kind of addresses that the allow-list grants this URL, or why it grants none. An address written in the URL
/// itself is checked here; a name is checked when it is resolved.
pub(super) fn space_of(allow: &[AllowEntry], url: &Url) -> Result<AddressSpace, WorldError> {
    if has_userinfo(url) {
        return Err(WorldError::Invalid("a URL with a user or password is refused: send a header instead".to_owned()));
    }
    let place = super::place(url);
    let entry = allow.iter().find(|entry| entry.covers(url)).ok_or_else(|| {
        WorldError::Forbidden(format!("{place} (path {}) is not in `http_allow` of the configuration", url.path()))
    })?;
    let literal = match url.host() {
        Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        Some(Host::Domain(_)) => None,
        None => return Err(WorldError::Invalid("the URL has no host".to_owned())),
    };
    match literal.and_then(|ip| objection(ip, entry.space).map(|why| (ip, why))) {
        Some((ip, why)) => Err(WorldError::Forbidden(refused(&place, ip, why, entry.space).to_string())),
        None => Ok(entry.space),
    }
}

/// Why the connection was not made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RefusedAddress(String);

pub(super) type DnsLookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

pub(super) fn system_lookup() -> DnsLookup {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect()) })
    })
}

/// Resolves a name once and refuses it if any of its addresses is out of bounds; the client connects to these results
/// and resolves nothing again.
pub(super) struct CheckedResolver {
    pub space: AddressSpace,
    pub lookup: DnsLookup,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (space, found) = (self.space, (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let found = found.await?;
            if let Some((ip, why)) = found.iter().find_map(|ip| objection(*ip, space).map(|why| (*ip, why))) {
                return Err(refused(name.as_str(), ip, why, space).into());
            }
            // Port 0 stands for the port of the URL.
            let addresses: Addrs = Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

fn refused(place: &str, ip: IpAddr, why: &str, space: AddressSpace) -> RefusedAddress {
    let hint = match space {
        AddressSpace::Public => "; if that is meant, write the entry of `http_allow` with `private+` before it",
        AddressSpace::Private => "",
    };
    RefusedAddress(format!("{place} is {ip}, {why}, where no runbook may go{hint}"))
}

fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Whether a path lies under a prefix, on a segment boundary. Escaped slashes and dots are no part of an allowed path:
/// servers disagree on their meaning.
fn under(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    let lower = path.to_ascii_lowercase();
    if ["%2f", "%5c", "%2e", "%25", "//"].iter().any(|trick| lower.contains(trick)) {
        return false;
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why an address is out of bounds, if it is.
pub(super) fn objection(ip: IpAddr, space: AddressSpace) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => objection_v4(ip, space),
        IpAddr::V6(ip) => objection_v6(ip, space),
    }
}

fn objection_v4(ip: Ipv4Addr, space: AddressSpace) -> Option<&'static str> {
    let [a, b, c, d] = ip.octets();
    let never = match (a, b, c, d) {
        (0, ..) => Some("an unspecified address"),
        (169, 254, ..) => Some("a link-local or metadata address"),
        // Alibaba's and Oracle's metadata live outside 169.254/16.
        (100, 100, 100, 200) | (192, 0, 0, _) => Some("a metadata or protocol address"),
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved address"),
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) | (192, 88, 99, _) => Some("a documentation address"),
        _ => None,
    };
    let private = match (a, b) {
        (127, _) => Some("a loopback address"),
        (10, _) | (172, 16..=31) | (192, 168) => Some("a private address"),
        (100, 64..=127) => Some("a carrier's private address"),
        (198, 18..=19) => Some("a benchmark address"),
        _ => None,
    };
    never.or(private.filter(|_| space == AddressSpace::Public))
}

fn objection_v6(ip: Ipv6Addr, space: AddressSpace) -> Option<&'static str> {
    let s = ip.segments();
    if let Some(inner) = ip.to_ipv4_mapped() {
        return match space {
            AddressSpace::Public => Some("an IPv4 address in IPv6 clothes"),
            AddressSpace::Private => objection_v4(inner, space),
        };
    }
    let never = match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => None,
        [0, 0, 0, 0, 0, 0, ..] => Some("an IPv4 address in IPv6 clothes"),
        [0x64, 0xff9b, ..] => Some("an address behind NAT64"),
        [0x2002, ..] | [0x2001, 0, ..] => Some("an address in a 6to4 or Teredo tunnel"),
        [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] => Some("a documentation or discard address"),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some("a metadata address"),
        _ if s[0] & 0xffc0 == 0xfe80 => Some("a link-local address"),
        _ if s[0] & 0xffc0 == 0xfec0 => Some("a site-local address"),
        _ if s[0] & 0xff00 == 0xff00 => Some("a multicast address"),
        _ => None,
    };
    let private = match s[0] {
        _ if ip.is_loopback() => Some("a loopback address"),
        first if first & 0xfe00 == 0xfc00 => Some("a private address"),
        _ => None,
    };
    never.or(private.filter(|_| space == AddressSpace::Public))
}
