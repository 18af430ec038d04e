//! Who is in the network: three controllers, three brokers, and the clients together.

use std::fmt;
use std::net::Ipv4Addr;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// By number, from 1.
    Controller(u8),
    /// By number, from 1.
    Broker(u8),
    Clients,
}

impl Who {
    pub(crate) const CONTROLLERS: [Self; 3] = [Self::Controller(1), Self::Controller(2), Self::Controller(3)];
    pub(crate) const BROKERS: [Self; 3] = [Self::Broker(1), Self::Broker(2), Self::Broker(3)];

    /// All that have a process of the cluster.
    pub(crate) fn nodes() -> impl Iterator<Item = Self> {
        Self::CONTROLLERS.into_iter().chain(Self::BROKERS)
    }

    /// All that have a place in the network.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::nodes().chain([Self::Clients])
    }

    /// The last part of its address.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Controller(number) => 10 + number,
            Self::Broker(number) => 20 + number,
            Self::Clients => 9,
        }
    }

    /// Its address.
    pub(crate) fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number())
    }

    /// Its address on the wire.
    pub(crate) fn mac(self) -> String {
        format!("02:77:00:00:00:{:02x}", self.number())
    }

    /// Who has this address: host, or host and port.
    pub(crate) fn at(endpoint: &str) -> Option<Self> {
        let host = endpoint.split(':').next()?;
        Self::all().find(|who| who.ip().to_string() == host)
    }

    /// What it serves gRPC on: a broker clients first, and then other brokers.
    pub(crate) fn ports(self) -> &'static [u16] {
        match self {
            Self::Controller(_) => &[9_349],
            Self::Broker(_) => &[9_347, 9_350],
            Self::Clients => &[],
        }
    }

    /// Where it is found: of a broker its clients' port.
    pub(crate) fn endpoint(self) -> String {
        let port = if matches!(self, Self::Controller(_)) { 9_349 } else { 9_347 };
        format!("{}:{port}", self.ip())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(number) => write!(f, "controller-{number}"),
            Self::Broker(number) => write!(f, "broker-{number}"),
            Self::Clients => f.write_str("clients"),
        }
    }
}
