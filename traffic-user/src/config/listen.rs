//! `[api] listen`: where the API listens. Loopback or a Unix socket only, so that no other host can reach it.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use rustix::net::SocketAddrUnix;

/// The address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address with a port.
    Tcp(SocketAddr),
    /// A Unix socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    /// Parses `127.0.0.1:9177`, `[::1]:9177` and `unix:/path`. Addresses that other hosts can reach are
    /// refused, because the API has no authentication.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(format!(
                    "the socket {path:?} has no absolute path; write \"unix:/run/trafctl/api.sock\""
                ));
            }
            SocketAddrUnix::new(path).map_err(|_| {
                "the path is not usable for a socket; write one of at most 108 bytes".to_owned()
            })?;
            return Ok(Self::Unix(path.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!(
                "{text:?} is not an address to listen on; write \"127.0.0.1:9177\" or \
                 \"unix:/run/trafctl/api.sock\""
            )
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{} is not a loopback address, and the API has no authentication; write \"127.0.0.1:{}\" or \
                 a Unix socket, and use a proxy for other hosts",
                address.ip(),
                address.port()
            ));
        }
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_host_are_accepted() {
        let parse = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        for good in ["127.0.0.1:9177", "127.9.9.9:1", "[::1]:9177", "unix:/run/trafctl/api.sock"] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for (bad, reason) in [
            ("0.0.0.0:9177", "0.0.0.0 is not a loopback address"),
            ("[::]:9177", ":: is not a loopback address"),
            ("192.0.2.1:80", "192.0.2.1 is not a loopback address"),
            ("[2001:db8::1]:80", "2001:db8::1 is not a loopback address"),
            ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1 is not a loopback address"),
            ("localhost:9177", "\"localhost:9177\" is not an address to listen on"),
            ("127.0.0.1", "\"127.0.0.1\" is not an address to listen on"),
            (":9177", "\":9177\" is not an address to listen on"),
            ("", "\"\" is not an address to listen on"),
            ("unix:", "the socket \"\" has no absolute path"),
            ("unix:api.sock", "the socket \"api.sock\" has no absolute path"),
            (&format!("unix:/{}", "x".repeat(108)), "the path is not usable for a socket"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with(reason), "{bad:?} gave {error:?}");
        }
    }
}
