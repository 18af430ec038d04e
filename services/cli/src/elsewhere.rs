//! What answers at an address that is not the public API: mostly another port of the same Weir.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use weir_client::DEFAULT_PORT;
use weir_proto::internal::v1::ListVotersRequest;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::v1::GetServerInfoRequest;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_rpc::GREETING;

use crate::address::Address;
use crate::connect;
use crate::error::{Error, MAYBE};

/// How long each look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much of an answer is looked at, in bytes.
const ANSWER_BYTES: u64 = 1 << 10;

/// A failure, with what is there instead of the public API where that can be told in time.
pub(crate) async fn instead(error: Error, address: &Address, time_left: Duration) -> Error {
    let named = tokio::time::timeout(time_left.min(2 * PATIENCE), name(address)).await;
    let Some(what) = named.ok().flatten() else { return error };
    let what = format!("{address} (from {}): {what}", address.source);
    match error {
        // Who answers now says nothing of what became of it.
        Error::Server(mut told) if told.exit_code() == MAYBE => {
            told.failure.message.push_str(&format!("; now at {what}"));
            Error::Server(told)
        }
        _ => Error::Unreachable(what),
    }
}

/// What is there instead; nothing where nobody can tell.
async fn name(address: &Address) -> Option<String> {
    if api(address).await {
        return None;
    }
    let answer = http(address).await.unwrap_or_default();
    Some(of_http(&answer, controller(address).await)).filter(|words| !words.is_empty())
}

/// In words, by what the root path was answered with and whether a controller's method is known.
fn of_http(answer: &str, controller: bool) -> String {
    let api =
        format!("the public gRPC API is on another port, {DEFAULT_PORT} unless --listen says otherwise");
    if answer.contains(GREETING) {
        // The right port, whatever was the matter with it.
        String::new()
    } else if answer.contains("weir: /metrics") {
        format!("this is a Weir's HTTP port (/metrics /healthz /readyz); {api}")
    } else if controller {
        format!("this is the port of a Weir's controller, which only brokers talk to; {api}")
    } else if answer.starts_with("HTTP/") {
        format!("what answers there is no Weir; {api}")
    } else {
        String::new()
    }
}

/// Whether the public API is there after all: it had only ended the connection.
async fn api(address: &Address) -> bool {
    let asked = async {
        let channel = connect::connect(address, PATIENCE).await.ok()?;
        MetadataServiceClient::new(channel).get_server_info(GetServerInfoRequest {}).await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().is_some()
}

/// What plain HTTP is answered with.
async fn http(address: &Address) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect((address.endpoint.host(), address.endpoint.port())).await.ok()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        // Who hangs up has said what there was to say.
        let _ended = stream.take(ANSWER_BYTES).read_to_end(&mut answer).await;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}

/// Whether a controller's method is known there, whatever it answers.
async fn controller(address: &Address) -> bool {
    let asked = async {
        let channel = connect::connect(address, PATIENCE).await.ok()?;
        match ControllerServiceClient::new(channel).list_voters(ListVotersRequest {}).await {
            Ok(_) => Some(true),
            // A controller says who it is by refusing in its own words.
            Err(status) => Some(!matches!(
                status.code(),
                Code::Unimplemented | Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal
            )),
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_have_been_applied_stays_so_whoever_answers_now() {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = proxy.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut to, _)) = proxy.accept().await {
                let _gone = to.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        let server = crate::address::parse(&at, crate::address::Source::Flag).unwrap();
        let died = weir_client::Error::from_status(&tonic::Status::unavailable("upstream died"), &at);
        for (failed, exit) in
            [(died.clone(), crate::error::MAYBE), (died.of_a_read(), crate::error::UNREACHABLE)]
        {
            let error = Error::of(&failed, &server);
            assert!(error.is_a_strangers());
            assert_eq!(error.exit_code(), exit);
            let told = instead(error, &server, Duration::from_secs(30)).await;
            assert_eq!(told.exit_code(), exit, "{told}");
            assert!(told.to_string().contains("no Weir"), "{told}");
            assert_eq!(told.to_string().contains("upstream died"), exit == crate::error::MAYBE, "{told}");
        }
    }

    #[test]
    fn a_public_api_that_is_slow_is_not_called_a_stranger() {
        let greeting =
            "HTTP/1.1 200 OK\r\n\r\nWeir 1.2.3, a durable log. This port speaks gRPC (weir.v1; ...)\n";
        assert_eq!(of_http(greeting, false), "");
    }

    #[test]
    fn another_port_of_a_weir_is_told_from_a_stranger() {
        let http = "HTTP/1.1 200 OK\r\n\r\nweir: /metrics /healthz /readyz\n";
        for (answer, controller, part) in [
            (http, false, "HTTP port"),
            ("HTTP/1.1 404 Not Found\r\n", true, "controller"),
            ("", true, "controller"),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", false, "no Weir"),
        ] {
            let words = of_http(answer, controller);
            assert!(words.contains(part), "{words}");
            assert!(words.contains("9347"), "{words}");
        }
        assert_eq!(of_http("SSH-2.0-OpenSSH", false), "");
    }
}
