//! Pages of other origins: a browser asks first, and lets them see what the answer allows.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::World;

const CALL: &str = "/weir.v1.MetadataService/GetServerInfo";

/// What a browser asks before a page of that origin may call.
async fn preflight(world: &World, origin: &str) -> String {
    let asked = "access-control-request-method: POST\r\naccess-control-request-headers: content-type,x-grpc-web,x-own";
    say(world, &format!("OPTIONS {CALL} HTTP/1.1\r\norigin: {origin}\r\n{asked}\r\n"), b"").await
}

/// The call itself.
async fn call(world: &World, origin: &str) -> String {
    let kind = "content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\ncontent-length: 5";
    say(world, &format!("POST {CALL} HTTP/1.1\r\norigin: {origin}\r\n{kind}\r\n"), &[0; 5]).await
}

async fn say(world: &World, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.addr()).await.unwrap();
    stream.write_all(format!("{head}host: weir\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_origins_that_are_named_may_call_and_see_how_it_ended() {
    let world = World::start(&[("--cors-origins", "https://app.example,http://localhost:3000")]).await;
    for origin in ["https://app.example", "http://localhost:3000"] {
        let allowed = format!("access-control-allow-origin: {origin}\r\n");
        let asked = preflight(&world, origin).await;
        assert!(asked.starts_with("http/1.1 200"), "{asked}");
        for part in [
            &*allowed,
            "access-control-allow-methods: post\r\n",
            "access-control-allow-headers: content-type,x-grpc-web,x-own\r\n",
        ] {
            assert!(asked.contains(part), "{part}: {asked}");
        }
        let answer = call(&world, origin).await;
        assert!(answer.contains(&allowed), "{answer}");
        let exposed = answer.lines().find(|line| line.starts_with("access-control-expose-headers:")).unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "weir-request-id"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert!(answer.contains("weir-request-id: ") && answer.contains("grpc-status:0"), "{answer}");
    }
    let stranger = preflight(&world, "https://evil.example").await;
    assert!(!stranger.contains("access-control-allow-origin"), "{stranger}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_is_everybody_and_nothing_is_nobody() {
    let world = World::start(&[("--cors-origins", "*")]).await;
    for answer in [preflight(&world, "https://any.example").await, call(&world, "https://any.example").await]
    {
        assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
    }
    world.stop().await;
    let world = World::start(&[]).await;
    for answer in [preflight(&world, "https://any.example").await, call(&world, "https://any.example").await]
    {
        assert!(!answer.contains("access-control-"), "{answer}");
    }
    world.stop().await;
}
