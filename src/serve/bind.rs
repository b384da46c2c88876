//! The address that `--http-bind` names: how to listen on it, and how to reach it from here.
//!
//! This module resolves no names but `localhost`: an address that depends on DNS is one that a pod
//! may fail to start on.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that the kernel may queue until they are accepted: a burst beyond this would be
/// retried by its clients only after a second (tcp(7), somaxconn).
const BACKLOG: i32 = 1024;

/// An address to serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// `:8080`: every address of this machine, of both families where it has both.
    Everywhere(u16),
    /// One address; `0.0.0.0` and `[::]` mean all of theirs.
    At(SocketAddr),
}

/// A text that is no address to serve on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBind;

impl Bind {
    /// Listens there, without blocking in accept.
    ///
    /// # Errors
    /// When the address is taken, not one of this machine's, or not allowed.
    pub fn listen(self) -> io::Result<TcpListener> {
        match self {
            Self::At(address) => listen(address),
            Self::Everywhere(port) => {
                listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| {
                    let no_ipv6 = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
                    match Errno::from_io_error(&error) {
                        Some(errno) if no_ipv6.contains(&errno) => {
                            listen((Ipv4Addr::UNSPECIFIED, port).into())
                        }
                        _ => Err(error),
                    }
                })
            }
        }
    }

    /// The addresses to try from within the same network namespace, in order: one at least.
    pub fn reachable_at(self) -> Vec<SocketAddr> {
        let loopbacks = |port| {
            let v4: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
            (v4, (Ipv6Addr::LOCALHOST, port).into())
        };
        match self {
            Self::At(address) if !address.ip().is_unspecified() => vec![address],
            Self::At(SocketAddr::V4(address)) => vec![loopbacks(address.port()).0],
            Self::At(SocketAddr::V6(address)) => {
                let (v4, v6) = loopbacks(address.port());
                vec![v6, v4]
            }
            Self::Everywhere(port) => {
                let (v4, v6) = loopbacks(port);
                vec![v4, v6]
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        // The default is a sysctl (ipv6(7), bindv6only).
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    // Or a restart would have to wait for the last life's connections to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

impl FromStr for Bind {
    type Err = BadBind;

    fn from_str(text: &str) -> Result<Self, BadBind> {
        let (host, port) = text.rsplit_once(':').ok_or(BadBind)?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadBind);
        }
        let port: u16 = port.parse().map_err(|_| BadBind)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let ip: IpAddr = match (host, bracketed) {
            ("", _) => return Ok(Self::Everywhere(port)),
            ("localhost", _) => Ipv4Addr::LOCALHOST.into(),
            (_, Some(v6)) => v6.parse::<Ipv6Addr>().map_err(|_| BadBind)?.into(),
            (v4, None) => v4.parse::<Ipv4Addr>().map_err(|_| BadBind)?.into(),
        };
        Ok(Self::At((ip, port).into()))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for BadBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address to serve on, such as :8080, 127.0.0.1:8080 or [::1]:8080")
    }
}

impl std::error::Error for BadBind {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_with_or_without_an_ip() {
        assert_eq!(":8080".parse(), Ok(Bind::Everywhere(8080)));
        for text in ["0.0.0.0:8080", "127.0.0.1:0", "[::]:80", "[::1]:65535"] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!(bind.to_string(), text);
        }
        assert_eq!("localhost:1".parse(), "127.0.0.1:1".parse::<Bind>());
        for text in [
            "",
            ":",
            "8080",
            ":+80",
            ":65536",
            "::1:80",
            "[::1]",
            "host:80",
            "[1.2.3.4]:80",
        ] {
            assert_eq!(text.parse::<Bind>(), Err(BadBind), "{text}");
        }
    }

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        let at = |text: &str| -> Vec<String> {
            let bind: Bind = text.parse().unwrap();
            bind.reachable_at()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(at(":80"), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(at("0.0.0.0:80"), ["127.0.0.1:80"]);
        assert_eq!(at("[::]:80"), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(at("10.0.0.1:80"), ["10.0.0.1:80"]);
    }

    #[test]
    fn everywhere_is_reached_over_ipv4_too() {
        let listener = Bind::Everywhere(0).listen().unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
