//! The roles a process can have, each with one struct of what it needs.

use std::net::SocketAddr;

use crate::broker::INTERNAL_LISTEN;
use crate::given::Values;
use crate::{Broker, Common, Controller, Error, Key, Section};

/// What a process is started as.
pub trait Role: Sized {
    /// Its name.
    const NAME: &'static str;
    /// The sections it reads. Settings of others may stand in the file and the environment; they are not used.
    const SECTIONS: &'static [Section];
    /// Settings that the role decides by itself, with their values. They are not shown.
    const DECIDED: &'static [(&'static str, &'static str)];

    /// The role with these values, which go together.
    #[doc(hidden)]
    fn read(values: &Values) -> Result<Self, Error>;
}

/// A process that is a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerProcess {
    /// What every process needs.
    pub common: Common,
    /// The broker.
    pub broker: Broker,
}

impl Role for BrokerProcess {
    const NAME: &'static str = "broker";
    const SECTIONS: &'static [Section] = &[Common::SECTION, Broker::SECTION];
    const DECIDED: &'static [(&'static str, &'static str)] = &[];

    fn read(values: &Values) -> Result<Self, Error> {
        let mut read = Self { common: Common::read(values)?, broker: Broker::read(values)? };
        read.broker.internal_listen.get_or_insert(INTERNAL_LISTEN);
        read.broker.check()?;
        let Broker { listen, advertised_address, internal_listen, internal_advertised_address, .. } =
            &read.broker;
        reachable("listen", Some(*listen), "advertised_address", advertised_address.as_ref())?;
        let told = internal_advertised_address.as_ref();
        reachable("internal_listen", *internal_listen, "internal_advertised_address", told)?;
        if read.broker.controllers.is_empty() {
            return Err(Error::Conflict {
                what: "controllers is empty: a broker needs one at least".to_owned(),
            });
        }
        Ok(read)
    }
}

/// A process that is a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerProcess {
    /// What every process needs.
    pub common: Common,
    /// The controller.
    pub controller: Controller,
}

impl Role for ControllerProcess {
    const NAME: &'static str = "controller";
    const SECTIONS: &'static [Section] = &[Common::SECTION, Controller::SECTION];
    const DECIDED: &'static [(&'static str, &'static str)] = &[];

    fn read(values: &Values) -> Result<Self, Error> {
        let read = Self { common: Common::read(values)?, controller: Controller::read(values)? };
        read.controller.check()?;
        let Controller { controller_listen, controller_advertised_address, .. } = &read.controller;
        let told = controller_advertised_address.as_ref();
        reachable("controller_listen", Some(*controller_listen), "controller_advertised_address", told)?;
        Ok(read)
    }
}

/// Others are told where a process is, and "every address of this machine" is none of them.
fn reachable(
    setting: &str,
    listen: Option<SocketAddr>,
    advertised_setting: &str,
    advertised: Option<&String>,
) -> Result<(), Error> {
    match listen.filter(|addr| addr.ip().is_unspecified() && advertised.is_none()) {
        None => Ok(()),
        Some(addr) => Err(Error::Conflict {
            what: format!(
                "{setting} is {addr}, every address of this machine, which others cannot connect to: say in \
                 {advertised_setting} which one they are told"
            ),
        }),
    }
}

/// A process that is a whole Weir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standalone {
    /// What every process needs.
    pub common: Common,
    /// The broker. Its controller is the one in the process.
    pub broker: Broker,
    /// The controller, alone in its quorum.
    pub controller: Controller,
}

impl Role for Standalone {
    const NAME: &'static str = "standalone";
    const SECTIONS: &'static [Section] = &[Common::SECTION, Broker::SECTION, Controller::SECTION];
    const DECIDED: &'static [(&'static str, &'static str)] =
        &[("bootstrap", "true"), ("controllers", ""), ("join", "")];

    fn read(values: &Values) -> Result<Self, Error> {
        let read = Self {
            common: Common::read(values)?,
            broker: Broker::read(values)?,
            controller: Controller::read(values)?,
        };
        read.broker.check()?;
        read.controller.check()?;
        Ok(read)
    }
}

/// Every setting of every role.
pub fn all_keys() -> impl Iterator<Item = &'static Key> {
    Standalone::SECTIONS.iter().flat_map(|section| section.keys)
}
