//! `[api] listen`: where the API listens. Loopback or a socket in the file system, so that only this host can reach it.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use rustix::net::SocketAddrUnix;

/// Where to listen, as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    /// Takes `127.0.0.1:9177`, `[::1]:9177` and `unix:/path`. What others could reach is refused: the API asks nobody
    /// who they are.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(format!(
                    "the socket {path:?} has no full path: write it as \"unix:/run/trafctl/api.sock\""
                ));
            }
            SocketAddrUnix::new(path)
                .map_err(|_| "the path cannot be a socket's name, which has at most 108 bytes".to_owned())?;
            return Ok(Self::Unix(path.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!(
                "{text:?} is no place to listen: write \"127.0.0.1:9177\" or \"unix:/run/trafctl/api.sock\""
            )
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{} is not loopback, and the API asks nobody who they are: write \"127.0.0.1:{}\" or a unix socket, and \
                 put a proxy before it for others",
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
    fn only_this_host_is_listened_to() {
        let parse = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        for good in ["127.0.0.1:9177", "127.9.9.9:1", "[::1]:9177", "unix:/run/trafctl/api.sock"] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for (bad, reason) in [
            ("0.0.0.0:9177", "0.0.0.0 is not loopback"),
            ("[::]:9177", ":: is not loopback"),
            ("192.0.2.1:80", "192.0.2.1 is not loopback"),
            ("[2001:db8::1]:80", "2001:db8::1 is not loopback"),
            ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1 is not loopback"),
            ("localhost:9177", "\"localhost:9177\" is no place to listen"),
            ("127.0.0.1", "\"127.0.0.1\" is no place"),
            (":9177", "\":9177\" is no place"),
            ("", "\"\" is no place"),
            ("unix:", "the socket \"\" has no full path"),
            ("unix:api.sock", "the socket \"api.sock\" has no full path"),
            (&format!("unix:/{}", "x".repeat(108)), "the path cannot be"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with(reason), "{bad:?} gave {error:?}");
        }
    }
}
