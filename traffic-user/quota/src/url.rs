//! Addresses of servers: what a webhook is sent to.

use std::{fmt, net::IpAddr};

/// Longest URL, in bytes.
const LONGEST: usize = 2000;
/// What RFC 3986 allows in a path and a query besides letters and digits.
const IN_TARGET: &str = "-._~:/?[]@!$&'()*+,;=%";

/// A URL without a password, as checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether by TLS. Without it, the host is this machine.
    pub is_encrypted: bool,
    /// The host: a name in small letters, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query. It may have a token, so it is neither logged nor shown.
    pub target: String,
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}/...", self.host, self.port)
    }
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// As a sentence, with what is accepted. It never repeats the URL, which may have a token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write a URL such as \"https://billing.example/hooks\"";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("it has no scheme; {example}"))?;
        let is_encrypted = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(format!("its scheme is not https; {example}")),
        };
        let length = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(length);
        if authority.contains('@') {
            return Err("it has a user name or a password, which others could read; remove it, and sign by \
                        `secret_file`"
                .to_owned());
        }
        let is_usable = |c: char| c.is_ascii_alphanumeric() || IN_TARGET.contains(c);
        if text.len() > LONGEST || target.contains('#') || !target.chars().all(is_usable) {
            return Err(format!(
                "its path has more than {LONGEST} bytes, a #, or characters that must be written as %XX; {example}"
            ));
        }
        let (host, port) =
            host_and_port(authority).ok_or_else(|| format!("it has no usable host; {example}"))?;
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !is_encrypted && !is_here {
            return Err("only this machine itself may be asked without TLS; write https".to_owned());
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let port = port.unwrap_or(if is_encrypted { 443 } else { 80 });
        Ok(Self { is_encrypted, host, port, target })
    }
}

fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_usable = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(is_usable);
            // A text of digits and dots that is no address is no name either.
            let is_number =
                host.chars().all(|c| c.is_ascii_digit() || c == '.') && host.parse::<IpAddr>().is_err();
            (Some(host).filter(|_| is_name && !is_number)?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
        Some(_) => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_has_a_host_and_https_unless_it_is_this_machine() {
        let of = |text: &str| {
            let url = Url::parse(text).unwrap();
            (url.is_encrypted, url.host, url.port, url.target)
        };
        let is = |tls, host: &str, port, target: &str| (tls, host.to_owned(), port, target.to_owned());
        assert_eq!(of("https://Billing.example/h?a=b%20c"), is(true, "billing.example", 443, "/h?a=b%20c"));
        assert_eq!(of("HTTPS://[2001:db8::1]:8443"), is(true, "2001:db8::1", 8443, "/"));
        assert_eq!(of("https://h?x"), is(true, "h", 443, "/?x"));
        assert_eq!(of("http://127.0.0.9:8080/x"), is(false, "127.0.0.9", 8080, "/x"));
        assert_eq!(of("http://[::1]/x"), is(false, "::1", 80, "/x"));
        assert_eq!(of("http://localhost"), is(false, "localhost", 80, "/"));
    }

    #[test]
    fn a_refusal_says_what_to_write_and_never_repeats_the_url() {
        for (text, why) in [
            ("billing.example/t0ken", "no scheme"),
            ("file:///etc/t0ken", "not https"),
            ("http://billing.example/t0ken", "without TLS"),
            ("http://localhost.evil.example/t0ken", "without TLS"),
            ("http://127.0.0.1.evil.example/t0ken", "without TLS"),
            ("https://t0ken:x@billing.example/", "a password"),
            ("https://127.0.0.1@evil.example/t0ken", "a password"),
            ("https:///t0ken", "no usable host"),
            ("https://:443/t0ken", "no usable host"),
            ("https://h:0/t0ken", "no usable host"),
            ("https://h:65536/t0ken", "no usable host"),
            ("https://h:+1/t0ken", "no usable host"),
            ("https://1.2.3/t0ken", "no usable host"),
            ("https://[::1/t0ken", "no usable host"),
            ("https://h\u{fc}/t0ken", "no usable host"),
            ("https://h/t0ken x", "%XX"),
            ("https://h/t0ken\r\nX: y", "%XX"),
            ("https://h/t0ken#x", "a #"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("t0ken"), "{text}: {error}");
        }
        let shown = format!("{:?}", Url::parse("https://h/t0ken").unwrap());
        assert_eq!(shown, "https://h:443/...");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "https?://\\PC*|\\PC*") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert!(url.target.starts_with('/') && !url.host.is_empty() && url.port > 0);
                prop_assert!(url.target.bytes().chain(url.host.bytes()).all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
