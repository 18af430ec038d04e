//! The configuration of Weir's processes: what can be set, where it may be set, and what is in force.
//!
//! Every setting is declared once, in the file of its section, with type, limits, default and a sentence on what it
//! does. From that come the struct that a role is started with, the check of what people write, the list of what
//! is in force and where each value comes from, and docs/configuration.md.
//!
//! A value is looked for in flags, then in the environment (`WEIR_…`), then in the file, and is else the default.
//! Whatever is not understood is an error that names the place and what was probably meant.
//!
//! Not here: settings of topics and of the cluster. Those are metadata, live in the cluster, and change while it runs.

mod broker;
mod common;
mod controller;
mod environment;
mod error;
mod file;
mod given;
mod key;
mod kind;
mod load;
mod reference;
mod roles;
mod section;
mod value;

pub use broker::Broker;
pub use common::{Common, LogFormat};
pub use controller::Controller;
pub use error::Error;
pub use given::{Resolved, Source};
pub use key::{Key, Section};
pub use kind::Kind;
pub use load::{Loaded, Loader};
pub use reference::reference;
pub use roles::{BrokerProcess, ControllerProcess, Role, Standalone, all_keys};
pub use value::Value;
