//! Where a call comes in: which listener it is, bound and named, before anybody serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_proto::internal::v1 as wire;
use weir_runtime::{Listener, Os};
use weir_types::Endpoint;

use crate::start::StartError;

/// A listener of a broker. Whoever asks on one is told the others' addresses on the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// For clients.
    Public,
    /// For other brokers: what they say of a call that they pass on is believed here alone.
    Internal,
}

impl Entrance {
    /// Its name in a broker's registration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
        }
    }

    /// The setting that says where others find it.
    fn advertised_setting(self) -> &'static str {
        match self {
            Self::Public => "advertised_address",
            Self::Internal => "internal_advertised_address",
        }
    }
}

/// A listener that has its address and is not served yet: connections wait in the system's queue. What a connection must
/// show before it is taken (TLS, one day) belongs here, beside the socket.
pub(crate) struct Bound {
    pub(crate) entrance: Entrance,
    pub(crate) listener: Box<dyn Listener>,
    /// Where others find it.
    pub(crate) endpoint: Endpoint,
}

impl Bound {
    /// Binds a listener that others find at `advertised`, or where it is bound.
    pub(crate) async fn new(
        os: &Arc<dyn Os>,
        entrance: Entrance,
        addr: SocketAddr,
        advertised: Option<&String>,
    ) -> Result<Self, StartError> {
        let what = match entrance {
            Entrance::Public => "gRPC",
            Entrance::Internal => "gRPC of other brokers",
        };
        let told = advertised.map(|text| text.parse()).transpose();
        let told =
            told.map_err(|error| StartError::Advertised { setting: entrance.advertised_setting(), error })?;
        let listener = crate::start::listen(os, addr, what).await?;
        let endpoint = told.unwrap_or_else(|| Endpoint::from(listener.local_addr()));
        Ok(Self { entrance, listener, endpoint })
    }

    /// As the controller is told of it.
    pub(crate) fn registered(&self) -> wire::Endpoint {
        wire::Endpoint {
            listener: self.entrance.name().to_owned(),
            host: self.endpoint.host().to_owned(),
            port: self.endpoint.port().into(),
        }
    }
}
