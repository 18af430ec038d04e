//! What a person sees when it serves.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use weir_client::DEFAULT_PORT;
use weir_proto::v1::ListConfigsRequest;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_standalone::Ready;

use crate::address::{Address, Source};
use crate::connect;
use crate::units;

/// How long the server may take to say what a person is told beside the addresses.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says on stdout where it serves and what to do first.
pub(super) async fn print(ready: Ready, data: String, took: Duration) {
    let durability = durability(ready.addr).await;
    let program = program(std::env::args().next().unwrap_or_default());
    let text = text(&ready, &data, took, durability.as_deref(), &program);
    let mut out = std::io::stdout().lock();
    // Nobody may be looking.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What an acknowledgement of a new topic means here: the cluster's setting, from the server itself.
async fn durability(addr: SocketAddr) -> Option<String> {
    // What listens on every address is reached on loopback.
    let host = if addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { addr.ip() };
    let endpoint = SocketAddr::new(host, addr.port()).into();
    let address = Address::alone(endpoint, Source::Default);
    let asked = async {
        let channel = connect::connect(&address, PATIENCE).await.ok()?;
        let request = ListConfigsRequest { broker_id: None };
        let answer = AdminServiceClient::new(channel).list_configs(request).await.ok()?;
        answer.into_inner().configs.into_iter().find(|setting| setting.name == "durability")
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().map(|setting| setting.value)
}

/// How the user starts this program: as it was started, so that the line can be copied.
fn program(first_argument: String) -> String {
    match first_argument.as_str() {
        path if path.starts_with('/') || path.starts_with('.') => path.to_owned(),
        path if path.contains('/') => format!("./{path}"),
        _ => "weir".to_owned(),
    }
}

fn text(ready: &Ready, data: &str, took: Duration, durability: Option<&str>, program: &str) -> String {
    let port = ready.addr.port();
    let reach = if ready.addr.ip().is_loopback() {
        format!("this machine only (--listen 0.0.0.0:{port} opens it)")
    } else {
        "reachable from other machines".to_owned()
    };
    let server = match port {
        DEFAULT_PORT => String::new(),
        _ => format!(" -s {}", host_port(ready.addr)),
    };
    let durability = durability.map(|class| format!("durability {class}      ")).unwrap_or_default();
    format!(
        "weir {} standalone, ready in {}      {durability}data {data}\n  \
           gRPC   {}  plaintext, no login, {reach}\n  \
           HTTP   {}  /metrics /healthz /readyz\n\
         In another terminal:\n  \
           {program}{server} topic create greetings\n  \
           echo hello | {program}{server} produce greetings\n  \
           {program}{server} consume greetings\n",
        env!("CARGO_PKG_VERSION"),
        units::elapsed(took),
        host_port(ready.addr),
        host_port(ready.http_addr),
    )
}

/// An address as people write it; what listens everywhere is reached here as localhost.
fn host_port(addr: SocketAddr) -> String {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => format!("localhost:{}", addr.port()),
        _ => addr.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(addr: &str) -> Ready {
        Ready {
            addr: addr.parse().unwrap(),
            http_addr: "127.0.0.1:9348".parse().unwrap(),
            controller_addr: "127.0.0.1:9349".parse().unwrap(),
            cluster_id: "7f3a".to_owned(),
            founded: false,
        }
    }

    #[test]
    fn the_first_screen() {
        let took = Duration::from_millis(120);
        let program = program("target/release/weir".to_owned());
        assert_eq!(
            text(&ready("127.0.0.1:9347"), "./weir-data", took, Some("fsync"), &program),
            concat!(
                "weir ",
                env!("CARGO_PKG_VERSION"),
                " standalone, ready in 120 ms      durability fsync      data ./weir-data\n",
                "  gRPC   localhost:9347  plaintext, no login, this machine only (--listen 0.0.0.0:9347 opens it)\n",
                "  HTTP   localhost:9348  /metrics /healthz /readyz\n",
                "In another terminal:\n",
                "  ./target/release/weir topic create greetings\n",
                "  echo hello | ./target/release/weir produce greetings\n",
                "  ./target/release/weir consume greetings\n",
            )
        );
    }

    #[test]
    fn another_port_is_named_in_what_to_copy() {
        let text = text(&ready("0.0.0.0:4000"), "d", Duration::ZERO, None, &program("weir".to_owned()));
        assert!(text.contains("  weir -s localhost:4000 topic create greetings\n"), "{text}");
        assert!(text.contains("reachable from other machines"), "{text}");
    }
}
