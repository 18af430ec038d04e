//! A controller that is served, by a task of its own, until it is stopped.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use weir_runtime::{Executors, OnEnd, Os, Reason, Role, Stop};

use crate::{Config, Controller, Error, Handle};

/// A controller that is served.
pub struct Running {
    addr: SocketAddr,
    handle: Handle,
    stop: Stop,
    /// Requested when it has ended and nobody asked for that.
    over: Stop,
    served: JoinHandle<Option<Result<(), Error>>>,
    _role: Role,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Running {
    /// Builds a controller and serves it. `over` is the wish that whoever runs it stops it: made by whoever has it, or
    /// because the controller has failed. Cancel safe, as [`Controller::build`] is.
    ///
    /// # Errors
    /// See [`Controller::build`].
    pub async fn start(
        os: &Arc<dyn Os>,
        executors: &Executors,
        config: Config,
        over: Stop,
    ) -> Result<Self, Error> {
        let controller = Controller::build(os.clone(), config).await?;
        let (addr, handle) = (controller.local_addr(), controller.handle());
        let (stop, role) = (Stop::new(), Role::new("controller", over.clone()));
        let serving = role.task("serve", OnEnd::StopRole, controller.serve(stop.clone()));
        let served = executors.spawn_control(serving);
        Ok(Self { addr, handle, stop, over, served, _role: role })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What others in the process may ask of it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops in order.
    ///
    /// # Errors
    /// What it failed with.
    pub async fn stop(self) -> Result<(), Error> {
        let asked = Reason::Asked("the process stops".to_owned());
        // From here on its end means nothing.
        self.over.request(asked.clone());
        self.stop.request(asked);
        // One that panicked has said so.
        self.served.await.ok().flatten().unwrap_or(Ok(()))
    }
}
