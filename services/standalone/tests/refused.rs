//! What does not start leaves nothing behind, and says what to do.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use weir_config::{Loader, Standalone as Config};
use weir_runtime::{Executors, ExecutorsConfig, Os, RealOs};
use weir_standalone::{Error, Standalone};

async fn start(dir: &Path, controller: &str) -> Result<Standalone, Error> {
    let os: Arc<dyn Os> = Arc::new(RealOs::new(4).unwrap());
    let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
    let config = Loader::new()
        .flag("--data-dir", dir.to_str().unwrap())
        .flag("--listen", "127.0.0.1:0")
        .flag("--http-listen", "127.0.0.1:0")
        .flag("--controller-listen", controller)
        .load::<Config>()
        .unwrap()
        .config;
    Standalone::start(os, &executors, &config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_data_directory_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let weir = start(&data, "127.0.0.1:0").await.unwrap();
    assert!(weir.founded());
    weir.stop().await.unwrap();
    for (part, name) in [("logs", "the log directory"), ("controller", "the controller's directory")] {
        let error = start(&data.join(part), "127.0.0.1:0").await.unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, Error::Inside { .. }), "{words}");
        assert!(words.contains(name), "{words}");
        assert!(words.ends_with(&format!("start with --data-dir {}", data.display())), "{words}");
        assert!(!data.join(part).join("controller").exists());
    }
    let weir = start(&data, "127.0.0.1:0").await.unwrap();
    assert!(!weir.founded());
    weir.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_said_with_its_flag_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let words = start(&data, &address).await.unwrap_err().to_string();
    for part in ["the controller", "--controller-listen", "--ephemeral --port 0"] {
        assert!(words.contains(part), "{words}");
    }
    assert_eq!(words.matches(&address).count(), 1, "{words}");
    assert!(!data.exists());
}
