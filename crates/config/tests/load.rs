//! What was set where comes together as documented.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use weir_config::{
    BrokerProcess, ControllerProcess, Error, Loaded, Loader, LogFormat, Resolved, Role, Standalone, all_keys,
};

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, text)| (OsString::from(name), OsString::from(text))).collect()
}

fn setting<'a, R>(loaded: &'a Loaded<R>, name: &str) -> &'a Resolved {
    loaded.settings.iter().find(|setting| setting.key.name == name).unwrap()
}

#[test]
fn every_setting_is_named_once_documented_and_has_a_default_that_it_may_have() {
    let mut names = BTreeSet::new();
    for key in all_keys() {
        assert!(names.insert(key.name), "{} is declared twice", key.name);
        assert!(key.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", key.name);
        let help = key.help();
        assert!(help.ends_with('.') && !help.contains('|'), "{}: {help:?}", key.name);
    }
    let loaded = Loader::new().load::<Standalone>().unwrap();
    assert!(loaded.settings.iter().all(|setting| setting.source.to_string() == "default"));
    Loader::new().load::<BrokerProcess>().unwrap();
    Loader::new().load::<ControllerProcess>().unwrap();
}

#[test]
fn the_defaults_are_those_of_the_first_minute() {
    let Standalone { common, broker, controller } = Loader::new().load().unwrap().config;
    assert_eq!(common.data_dir, PathBuf::from("./weir-data"));
    assert_eq!(common.log_format, LogFormat::People);
    assert_eq!(broker.listen.to_string(), "127.0.0.1:9347");
    assert_eq!(common.http_listen.to_string(), "127.0.0.1:9348");
    assert_eq!(controller.controller_listen.to_string(), "127.0.0.1:9349");
    assert_eq!((broker.advertised_address, broker.data_runtimes), (None, None));
    assert_eq!((broker.request_bytes_max, broker.wait_ms_max), (16 << 20, Duration::from_secs(30)));
    assert!(controller.bootstrap, "a standalone process starts its own cluster");
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "rack = \"file\"\nconnections_max = 1\nopen_files_max = 100\n";
    let loaded = Loader::new()
        .text("/etc/weir.toml", file)
        .environment(variables(&[("WEIR_RACK", "env"), ("WEIR_CONNECTIONS_MAX", "2")]))
        .flag("--rack", "first")
        .flag("rack", "last")
        .load::<BrokerProcess>()
        .unwrap();
    let expected = [
        ("rack", "last", "flag --rack"),
        ("connections_max", "2", "env WEIR_CONNECTIONS_MAX"),
        ("open_files_max", "100", "/etc/weir.toml:3"),
        ("wait_ms_max", "30000", "default"),
    ];
    for (name, value, source) in expected {
        let setting = setting(&loaded, name);
        assert_eq!((setting.value.stored().as_str(), setting.source.to_string().as_str()), (value, source));
    }
    assert_eq!((loaded.config.broker.rack.as_str(), loaded.config.broker.open_files_max), ("last", 100));
}

#[test]
fn who_listens_everywhere_says_where_others_find_it() {
    for (listen, advertised) in
        [("listen", "advertised_address"), ("internal_listen", "internal_advertised_address")]
    {
        let everywhere = Loader::new().flag(listen, "0.0.0.0:1");
        let error = everywhere.load::<BrokerProcess>().unwrap_err().to_string();
        assert!(error.contains(&format!("{listen} is 0.0.0.0:1")) && error.contains(advertised), "{error}");
        everywhere.clone().flag(advertised, "b1.example:1").load::<BrokerProcess>().unwrap();
    }
    let everywhere = Loader::new().flag("controller_listen", "[::]:1");
    let error = everywhere.load::<ControllerProcess>().unwrap_err().to_string();
    assert!(error.contains("controller_advertised_address"), "{error}");
    everywhere.clone().flag("controller_advertised_address", "c1:1").load::<ControllerProcess>().unwrap();
    // It has nobody to tell.
    Loader::new().flag("listen", "0.0.0.0:1").load::<Standalone>().unwrap();
}

#[test]
fn what_is_shown_is_a_file_that_sets_the_same() {
    let loaded = Loader::new()
        .text("weir.toml", "controllers = [\"a:1\", \"b:2\"]\nrack = 'a \"quoted\" \\ one'\n")
        .environment(variables(&[("WEIR_WAIT_MS_MAX", "90s"), ("WEIR_DATA_RUNTIMES", "3")]))
        .flag("--request-bytes-max", "20MiB")
        .load::<BrokerProcess>()
        .unwrap();
    let shown = loaded.to_string();
    let again = Loader::new().text("shown.toml", shown.clone()).load::<BrokerProcess>().unwrap();
    assert_eq!(again.config, loaded.config);
    let line = |name: &str| {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        line.split("  # ").map(str::trim).collect::<Vec<_>>()
    };
    assert_eq!(line("request_bytes_max "), ["request_bytes_max = \"20MiB\"", "flag --request-bytes-max"]);
    assert_eq!(line("wait_ms_max "), ["wait_ms_max = \"90s\"", "env WEIR_WAIT_MS_MAX"]);
    assert_eq!(line("data_runtimes "), ["data_runtimes = 3", "env WEIR_DATA_RUNTIMES"]);
    assert_eq!(line("controllers "), ["controllers = [\"a:1\", \"b:2\"]", "weir.toml:1"]);
    assert_eq!(line("listen "), ["listen = \"127.0.0.1:9347\"", "default"]);
}

#[test]
fn a_file_serves_every_role_and_each_shows_its_own() {
    let loader =
        Loader::new().text("weir.toml", "bootstrap = false\nrack = \"b\"\ncontrollers = [\"c:1\"]\n");
    let names = |settings: &[Resolved]| settings.iter().map(|s| s.key.name).collect::<BTreeSet<_>>();
    let broker = loader.load::<BrokerProcess>().unwrap();
    assert!(names(&broker.settings).contains("rack") && !names(&broker.settings).contains("bootstrap"));
    let controller = loader.load::<ControllerProcess>().unwrap();
    assert!(
        names(&controller.settings).contains("bootstrap") && !names(&controller.settings).contains("rack")
    );
    // What a standalone process decides by itself is neither shown nor taken from elsewhere.
    let standalone = loader.load::<Standalone>().unwrap();
    assert!(standalone.config.controller.bootstrap && standalone.config.broker.controllers.is_empty());
    assert!(!names(&standalone.settings).contains("bootstrap"));
    for (name, _) in Standalone::DECIDED {
        assert!(all_keys().any(|key| key.name == *name), "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_do() {
    let error = |loader: Loader| loader.load::<Standalone>().unwrap_err().to_string();
    let file = |text: &str| error(Loader::new().text("weir.toml", text));
    let env = |name: &str, text: &str| error(Loader::new().environment(variables(&[(name, text)])));
    let flag = |name: &str, text: &str| error(Loader::new().flag(name, text));
    let cases = [
        (
            file("\nrequest_bytes_max = \"2GiB\""),
            "weir.toml:2: request_bytes_max = \"2GiB\" is not a number of bytes, 1MiB to 1GiB",
        ),
        (
            env("WEIR_LOG_FORMAT", "xml"),
            "env WEIR_LOG_FORMAT: log_format = \"xml\" is not one of people, json",
        ),
        (flag("--listn", "x"), "flag --listn: there is no setting \"--listn\"; did you mean \"--listen\"?"),
        (
            flag("--listen", "9347"),
            "flag --listen: listen = \"9347\" is not an address of this machine with a port, like 127.0.0.1:9347 \
             or [::]:9347",
        ),
        (file("wait_ms_default = \"31s\""), "wait_ms_default (31s) is longer than wait_ms_max (30s)"),
        (file("inflight_bytes_max = \"1MiB\""), "inflight_bytes_max (1048576 B) is less than"),
        (file("raft_election_ms_min = \"600ms\""), "raft_election_ms_min (600ms) is not below"),
        (file("raft_heartbeat_ms = \"200ms\""), "raft_heartbeat_ms (200ms) is more than half"),
        (file("broker_session_ms = \"1s\""), "broker_heartbeat_ms (500ms) is more than a third"),
    ];
    for (error, expected) in cases {
        assert!(error.starts_with(expected), "{error}");
    }
    let error = Loader::new().text("f", "controllers = []").load::<BrokerProcess>().unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
}

#[test]
fn a_named_file_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    let error = Loader::process(Some(&path)).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read the configuration file /") && error.contains("weir.toml"),
        "{error}"
    );
    std::fs::write(&path, "rack = \"b\"\n").unwrap();
    let loaded = Loader::new().file(&path).unwrap().load::<BrokerProcess>().unwrap();
    assert_eq!(loaded.config.broker.rack, "b");
}

#[test]
fn batches_fit_into_requests() {
    let batch_bytes_max = |request: &str| {
        let loader = Loader::new().flag("request_bytes_max", request).flag("inflight_bytes_max", "1GiB");
        loader.load::<BrokerProcess>().unwrap().config.broker.batch_bytes_max()
    };
    assert_eq!(batch_bytes_max("16MiB"), (16 << 20) - (64 << 10));
    assert_eq!(batch_bytes_max("1GiB"), 64 << 20);
}
