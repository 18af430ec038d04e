//! Where a listener is bound.

use std::io;
use std::net::SocketAddr;

use weir_runtime::{Listener, Os};

/// Binds a listener, and says so if other machines can reach it. `what` it is for, the log says.
///
/// # Errors
/// What the system says: mostly that the port is taken.
pub async fn listen(os: &dyn Os, what: &str, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let listener = os.listen(addr).await?;
    let bound = listener.local_addr();
    if !bound.ip().is_loopback() {
        tracing::warn!(
            listener = what,
            %bound,
            "reachable from other machines, without TLS and login: anybody there may use it"
        );
    }
    Ok(listener)
}
