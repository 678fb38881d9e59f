//! `ADDR[:PORT]`: an address, a network or a host name, and perhaps a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use winnow::combinator::{alt, delimited, opt, preceded, terminated};
use winnow::error::ContextError;
use winnow::prelude::*;
use winnow::token::{rest, take_while};

use super::super::net::{Cidr, Endpoint, Peer};
use super::super::units::{Flaw, ports};

/// An endpoint as written: host, prefix length, ports.
type Parts<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// The longest host name (RFC 1035), without the final dot.
const NAME_MAX: usize = 253;
/// The longest label of a host name (RFC 1035).
const LABEL_MAX: usize = 63;

/// The endpoint in `word`.
pub(super) fn endpoint(word: &str) -> Result<Endpoint, Flaw> {
    let is_v6 = |(host, _, _): &Parts<'_>| host.contains(':');
    let (host, prefix, port) =
        alt((bracketed, bare_v6.verify(is_v6), plain)).parse(word).map_err(|_| Flaw::Shape)?;
    let ports = port.map(ports).transpose()?;
    let peer = peer(host, prefix)?;
    Ok(Endpoint { peer, ports })
}

/// `[2001:db8::1]`, `[2001:db8::/32]:443`
fn bracketed<'a>(input: &mut &'a str) -> winnow::Result<Parts<'a>> {
    let inside = take_while(1.., |c: char| c.is_ascii_hexdigit() || ":.".contains(c));
    let ((host, prefix), port) = (delimited('[', (inside, opt(slash)), ']'), opt(colon)).parse_next(input)?;
    if !host.contains(':') {
        return Err(ContextError::new());
    }
    Ok((host, prefix, port))
}

/// `2001:db8::1`, `2001:db8::/32`: no port, for the colon is taken.
fn bare_v6<'a>(input: &mut &'a str) -> winnow::Result<Parts<'a>> {
    let host = take_while(1.., |c: char| c.is_ascii_hexdigit() || ":.".contains(c));
    let two_colons = |host: &&str| host.matches(':').count() > 1;
    let (host, prefix) =
        terminated((host.verify(two_colons), opt(slash)), winnow::combinator::eof).parse_next(input)?;
    Ok((host, prefix, None))
}

/// `10.0.0.1`, `10.0.0.0/8:5432`, `db.example:5432`
fn plain<'a>(input: &mut &'a str) -> winnow::Result<Parts<'a>> {
    let host = take_while(1.., |c: char| !"/:[]".contains(c));
    (host, opt(slash), opt(colon)).parse_next(input)
}

fn slash<'a>(input: &mut &'a str) -> winnow::Result<&'a str> {
    preceded('/', take_while(1.., |c: char| c.is_ascii_digit())).parse_next(input)
}

fn colon<'a>(input: &mut &'a str) -> winnow::Result<&'a str> {
    preceded(':', rest).parse_next(input)
}

fn peer(host: &str, prefix: Option<&str>) -> Result<Peer, Flaw> {
    let address =
        host.parse::<Ipv4Addr>().map(IpAddr::V4).or_else(|_| host.parse::<Ipv6Addr>().map(IpAddr::V6));
    match (address, prefix) {
        (Ok(address), None) => Ok(Peer::Ip(address)),
        (Ok(address), Some(prefix)) => {
            let prefix = prefix.parse().map_err(|_| Flaw::Range)?;
            Cidr::new(address, prefix).map(Peer::Cidr).ok_or(Flaw::Range)
        }
        (Err(_), None) if is_name(host) => Ok(Peer::Name(host.to_owned())),
        (Err(_), _) => Err(Flaw::Shape),
    }
}

/// A host name as RFC 1123 has it, underscores allowed. A last label of digits only would be a
/// misspelt IPv4 address, never a name.
fn is_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let in_size = (1..=LABEL_MAX).contains(&label.len());
        let hyphen = label.starts_with('-') || label.ends_with('-');
        in_size && !hyphen && label.chars().all(inner)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.chars().all(|c| c.is_ascii_digit());
    name.len() <= NAME_MAX && !numeric && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> Result<String, Flaw> {
        endpoint(word).map(|endpoint| format!("{endpoint:?}"))
    }

    fn printed(word: &str) -> Result<String, Flaw> {
        endpoint(word).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn addresses_networks_and_names_are_told_apart() {
        assert!(matches!(endpoint("10.0.0.1").map(|e| e.peer), Ok(Peer::Ip(_))));
        assert!(matches!(endpoint("::1").map(|e| e.peer), Ok(Peer::Ip(_))));
        assert!(matches!(endpoint("[::1]").map(|e| e.peer), Ok(Peer::Ip(_))));
        assert!(matches!(endpoint("10.0.0.0/8").map(|e| e.peer), Ok(Peer::Cidr(_))));
        assert!(matches!(endpoint("2001:db8::/32").map(|e| e.peer), Ok(Peer::Cidr(_))));
        for name in ["localhost", "db-1.example", "db_1", "10.example", "xn--mnchen-3ya.de", "a.b.c."] {
            assert!(matches!(endpoint(name).map(|e| e.peer), Ok(Peer::Name(_))), "{name}");
        }
    }

    #[test]
    fn a_colon_after_an_ipv6_address_needs_brackets() {
        assert_eq!(printed("::1:80"), Ok("::1:80".to_owned()));
        assert_eq!(endpoint("::1:80").map(|e| e.ports), Ok(None));
        assert_eq!(printed("[::1]:80"), Ok("[::1]:80".to_owned()));
        assert_eq!(printed("[2001:db8::1/32]:80-90"), Ok("[2001:db8::/32]:80-90".to_owned()));
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for word in [
            "",
            ":",
            ":80",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "1",
            "10.0.0.0/",
            "10.0.0.0/a",
            "db.example/8",
            "[10.0.0.1]:80",
            "[::1",
            "::1]",
            "[::1]80",
            "[]",
            "[::1]:",
            "1::2::3",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a b",
            "a/b/c",
            "héé",
            "10.0.0.1:",
            "10.0.0.1:http",
            "http://a",
        ] {
            assert_eq!(read(word), Err(Flaw::Shape), "{word}");
        }
        for word in ["10.0.0.0/33", "::/129", "::/999", "10.0.0.1:0", "a:65536", "[::1]:99999999999"] {
            assert_eq!(read(word), Err(Flaw::Range), "{word}");
        }
        let long = format!("{}.example", "a".repeat(64));
        assert_eq!(read(&long), Err(Flaw::Shape));
        let long = format!("{}example", "abcdefg.".repeat(31));
        assert_eq!(read(&long), Err(Flaw::Shape));
    }
}
