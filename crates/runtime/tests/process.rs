//! What can only be seen from outside: signals, aborts and what a process writes to stderr. Each test starts this
//! test program again as a child, with the name of what it is to do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests may panic")]

use std::future::pending;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal as Kill, kill_process};
use weir_io::MemDisk;
use weir_runtime::testing::TestOs;
use weir_runtime::{
    Executors, ExecutorsConfig, LogFormat, OnEnd, Os, Role, Stop, init_telemetry, watch_signals,
};

const ROLE: &str = "WEIR_RUNTIME_TEST_CHILD";

/// Not a test of its own: what a child does.
#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Ok("stops in order") => serve(pending(), async |over| {
            over.requested().await;
            say(&format!("stopped: {}", over.reason().unwrap()));
        }),
        Ok("never stops") => serve(pending(), async |over| {
            over.requested().await;
            say("stopping");
            pending::<()>().await;
        }),
        Ok("panics in a task") => {
            init_telemetry(LogFormat::People, "info").unwrap();
            serve(async { panic!("on purpose") }, async |over| {
                over.requested().await;
                say(&format!("stopped: {}", over.reason().unwrap()));
            });
        }
        Ok("panics in a loop") => {
            init_telemetry(LogFormat::People, "info").unwrap();
            let os = TestOs::threads(Arc::new(MemDisk::new(0))).unwrap();
            os.spawn_loop("weir-flusher", Box::new(|| panic!("on purpose")));
            sleep_for_ever();
        }
        Ok("panics in a job") => {
            init_telemetry(LogFormat::People, "off").unwrap();
            let os = TestOs::threads(Arc::new(MemDisk::new(0))).unwrap();
            os.block(Box::new(|| panic!("on purpose")));
            sleep_for_ever();
        }
        Ok("logs json") => {
            init_telemetry(LogFormat::Json, "warn,process=info").unwrap();
            assert!(init_telemetry(LogFormat::Json, "info").is_err());
            tracing::info!(topic = "flights", "a line\nand another");
            tracing::debug!("not this");
            tracing::info!(target: "elsewhere", "nor this");
            let _ = std::panic::catch_unwind(|| panic!("on purpose"));
        }
        Ok("logs text") => {
            init_telemetry(LogFormat::People, "info").unwrap();
            tracing::info!(topic = "flights", "created");
            // In the words of a library, of what each caller says himself.
            tracing::warn!(target: "h2::proto::streams::recv", "recv_reset; remotely-reset pending-accept streams");
        }
        _ => {}
    }
}

/// A process with one role, that lives by one task, until `main` is done with it.
fn serve(task: impl Future<Output = ()> + Send + 'static, main: impl AsyncFnOnce(&Stop)) {
    let executors = Executors::start(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 }).unwrap();
    executors.run(async {
        let over = Stop::new();
        watch_signals(&over).unwrap();
        let role = Role::new("broker", over.clone());
        drop(executors.spawn_data(0, role.task("serve", OnEnd::StopRole, task)));
        say("ready");
        main(&over).await;
        role.end().await;
    });
}

fn sleep_for_ever() {
    let (_never_used, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv();
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\nchild: {line}").unwrap();
    out.flush().unwrap();
}

struct Started {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

fn start(role: &str) -> Started {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Started { child, lines }
}

impl Started {
    fn hears(&mut self) -> String {
        self.lines.find_map(|line| line.unwrap().strip_prefix("child: ").map(str::to_owned)).unwrap()
    }

    fn kill(&self, signal: Kill) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, and what it wrote to stderr.
    fn end(mut self) -> (std::process::ExitStatus, String) {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap(), stderr)
    }
}

#[test]
fn the_first_signal_stops_in_order() {
    for (signal, name) in [(Kill::TERM, "SIGTERM"), (Kill::INT, "SIGINT")] {
        let mut child = start("stops in order");
        assert_eq!(child.hears(), "ready");
        child.kill(signal);
        assert_eq!(child.hears(), format!("stopped: {name} received"));
        let (status, stderr) = child.end();
        assert!(status.success(), "{status} {stderr}");
    }
}

#[test]
fn the_second_signal_stops_at_once() {
    for (signal, code) in [(Kill::INT, 130), (Kill::TERM, 143)] {
        let mut child = start("never stops");
        assert_eq!(child.hears(), "ready");
        child.kill(Kill::TERM);
        assert_eq!(child.hears(), "stopping");
        child.kill(signal);
        let (status, stderr) = child.end();
        assert_eq!(status.code(), Some(code), "{stderr}");
    }
}

#[test]
fn a_panic_in_a_loop_or_job_ends_the_process() {
    for (role, thread) in [("panics in a loop", "weir-flusher"), ("panics in a job", "weir-io-")] {
        let (status, stderr) = start(role).end();
        assert_eq!(status.signal(), Some(Kill::ABORT.as_raw()), "{status} {stderr}");
        assert!(stderr.contains("panic: on purpose") && stderr.contains(thread), "{stderr}");
    }
}

#[test]
fn a_panic_in_a_task_of_a_role_stops_the_process_in_order() {
    let mut child = start("panics in a task");
    assert_eq!(child.hears(), "ready");
    assert_eq!(child.hears(), "stopped: broker/serve ended: it panicked");
    let (status, stderr) = child.end();
    assert!(status.success(), "{status} {stderr}");
    for said in ["panic: on purpose", "the process stops: it panicked", "broker/serve"] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}

#[test]
fn json_logs_are_json_panics_too() {
    let (status, stderr) = start("logs json").end();
    assert!(status.success(), "{stderr}");
    let lines: Vec<serde_json::Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert_eq!(
        (&lines[0]["message"], &lines[0]["topic"]),
        (&"a line\nand another".into(), &"flights".into())
    );
    assert_eq!((&lines[1]["message"], &lines[1]["level"]), (&"panic: on purpose".into(), &"ERROR".into()));
    assert!(lines[1]["location"].as_str().unwrap().contains("process.rs"), "{stderr}");
}

#[test]
fn text_logs_are_short_and_plain_off_a_terminal() {
    let (status, stderr) = start("logs text").end();
    assert!(status.success(), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("created") && stderr.contains("topic=\"flights\""), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
}

#[test]
fn a_filter_that_cannot_be_read_is_named() {
    let error = init_telemetry(LogFormat::People, "weir=loud").unwrap_err().to_string();
    assert!(error.contains("weir=loud") && error.contains("info"), "{error}");
}
