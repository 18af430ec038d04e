//! What does not start leaves nothing behind, and says what to do.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use weir_config::{Loader, Standalone as Config};
use weir_process::data_dir;
use weir_runtime::{Executors, ExecutorsConfig, Os, RealOs, Reason, Stop};
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
        assert!(matches!(error, Error::DataDir(data_dir::Error::Inside { .. })), "{words}");
        assert!(words.contains(name), "{words}");
        assert!(words.ends_with(&format!("start with --data-dir {}", data.display())), "{words}");
        assert!(!data.join(part).join("controller").exists());
    }
    let weir = start(&data, "127.0.0.1:0").await.unwrap();
    assert!(!weir.founded());
    weir.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_with_other_things_in_it_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "mine").unwrap();
    };
    let refused = async || {
        let error = start(dir.path(), "127.0.0.1:0").await.unwrap_err();
        assert!(matches!(error, Error::DataDir(data_dir::Error::NotEmpty { .. })), "{error}");
        assert!(!dir.path().join("logs").exists(), "something was made");
        error.to_string()
    };
    // What is nobody's: a file system's, an editor's, the configuration's.
    ["lost+found/x", ".hidden", "weir.toml"].iter().for_each(|name| made(name));
    for name in ["photo.jpg", "letter.txt", "tax.pdf", "z", "src/main.rs"] {
        made(name);
    }
    let words = refused().await;
    for part in ["(letter.txt, photo.jpg, src, 2 more)", dir.path().to_str().unwrap(), "--data-dir", "empty"]
    {
        assert!(words.contains(part), "{words}");
    }
    for name in ["photo.jpg", "letter.txt", "tax.pdf", "z"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    assert!(refused().await.contains("(src)"));
    std::fs::remove_dir_all(dir.path().join("src")).unwrap();
    // Another program's folder that is called as one of ours.
    made("controller/main.c");
    assert!(refused().await.contains("(controller/main.c)"));
    std::fs::remove_dir_all(dir.path().join("controller")).unwrap();
    let weir = start(dir.path(), "127.0.0.1:0").await.unwrap();
    assert!(weir.founded());
    weir.stop().await.unwrap();
    // Once it is one, whatever else is put there is nobody's business.
    made("notes.txt");
    start(dir.path(), "127.0.0.1:0").await.unwrap().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_are_not_there_are_missed_and_nothing_is_made_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, away) = (dir.path().join("logs"), dir.path().join("away"));
    start(dir.path(), "127.0.0.1:0").await.unwrap().stop().await.unwrap();
    std::fs::rename(&logs, &away).unwrap();
    // Once without the folder, once with that on which a disk should be mounted.
    for mount_point in [false, true] {
        if mount_point {
            std::fs::create_dir(&logs).unwrap();
        }
        let error = start(dir.path(), "127.0.0.1:0").await.unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, Error::NoLogs { broker_id: 1, .. }), "{words}");
        for part in [logs.to_str().unwrap(), "is a disk not mounted", "lost for good"] {
            assert!(words.contains(part), "{words}");
        }
        assert_eq!(logs.exists(), mount_point);
        assert!(!mount_point || std::fs::read_dir(&logs).unwrap().next().is_none(), "something was made");
    }
    std::fs::remove_dir(&logs).unwrap();
    std::fs::rename(&away, &logs).unwrap();
    let weir = start(dir.path(), "127.0.0.1:0").await.unwrap();
    assert!(!weir.founded());
    weir.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_not_there_is_missed_and_no_other_cluster_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, away) = (dir.path().join("controller"), dir.path().join("away"));
    let weir = start(dir.path(), "127.0.0.1:0").await.unwrap();
    let cluster_id = weir.cluster_id();
    weir.stop().await.unwrap();
    std::fs::rename(&controller, &away).unwrap();
    let error = start(dir.path(), "127.0.0.1:0").await.unwrap_err();
    let words = error.to_string();
    assert!(matches!(error, Error::NoController { .. }), "{words}");
    for part in [&*cluster_id, controller.to_str().unwrap(), "Bring it back"] {
        assert!(words.contains(part), "{words}");
    }
    assert!(!controller.exists(), "a cluster was begun");
    std::fs::rename(&away, &controller).unwrap();
    start(dir.path(), "127.0.0.1:0").await.unwrap().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_interrupted_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let os: Arc<dyn Os> = Arc::new(RealOs::new(4).unwrap());
    // The controller has made a cluster, and no broker has come.
    let at = weir_controller::Config::new(dir.path().join("controller"), "127.0.0.1:0".parse().unwrap());
    let controller = weir_controller::Controller::build(os, at.standalone()).await.unwrap();
    let (handle, stop) = (controller.handle(), Stop::new());
    let served = tokio::spawn(controller.serve(stop.clone()));
    handle.ready().await;
    assert_eq!(handle.first_broker().await.unwrap(), None);
    stop.request(Reason::Asked("the test".to_owned()));
    served.await.unwrap().unwrap();
    start(dir.path(), "127.0.0.1:0").await.unwrap().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_that_make_no_sense_say_what_they_are_for_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path(), "127.0.0.1:0").await.unwrap().stop().await.unwrap();
    let broken = [
        ("logs/dir.json", "{", "whose directory this is"),
        ("logs/dir.json", "{\"format_version\": 0, \"directory_id\": \"1\"}", "format_version"),
        ("logs/broker-epoch", "", "older copy"),
        ("logs/metadata-version", "x", "nothing older"),
        ("controller/raft.redb", "nonsense", "the cluster's metadata"),
    ];
    for (file, now, meaning) in broken {
        let path = dir.path().join(file);
        // Nothing was acted upon yet: one of them is not there.
        let kept = std::fs::read(&path).ok();
        std::fs::write(&path, now).unwrap();
        let words = start(dir.path(), "127.0.0.1:0").await.unwrap_err().to_string();
        for part in [path.to_str().unwrap(), meaning, "back from a backup"] {
            assert!(words.contains(part), "{file}: {words}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), now.as_bytes(), "{file} was changed");
        std::fs::remove_file(&path).unwrap();
        if let Some(kept) = kept {
            std::fs::write(&path, kept).unwrap();
        }
    }
    start(dir.path(), "127.0.0.1:0").await.unwrap().stop().await.unwrap();
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
