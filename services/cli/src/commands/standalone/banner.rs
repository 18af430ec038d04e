//! What a person sees when it serves.

use std::io::Write as _;

use weir_config::Standalone as Config;
use weir_standalone::Ready;

pub(crate) fn print(config: &Config, ready: &Ready, ephemeral: bool) {
    let mut out = std::io::stdout().lock();
    // Nobody may be looking.
    let _ = write!(out, "{}", text(config, ready, ephemeral));
    let _ = out.flush();
}

fn text(config: &Config, ready: &Ready, ephemeral: bool) -> String {
    let data = if ephemeral {
        "temporary, gone at the end".to_owned()
    } else {
        config.common.data_dir.display().to_string()
    };
    let reach = if ready.addr.ip().is_loopback() {
        format!("this machine only (--listen 0.0.0.0:{} opens it)", ready.addr.port())
    } else {
        "reachable from other machines".to_owned()
    };
    format!(
        "weir {} standalone, ready      durability fsync      data {data}\n  \
           gRPC   {}  plaintext, no login, {reach}\n  \
           HTTP   {}  /metrics /healthz /readyz\n\
         In another terminal:\n  \
           weir topic create greetings\n  \
           echo hello | weir produce greetings\n  \
           weir consume greetings\n",
        env!("CARGO_PKG_VERSION"),
        host_port(ready.addr),
        host_port(ready.http_addr),
    )
}

/// Loopback as people write it.
fn host_port(addr: std::net::SocketAddr) -> String {
    if addr.ip() == std::net::Ipv4Addr::LOCALHOST {
        format!("localhost:{}", addr.port())
    } else {
        addr.to_string()
    }
}
