//! A controller that is gone, or slow, is asked again at a measured pace. On tokio's own clock: nothing waits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status};
use weir_io::{Disk, MemDisk};
use weir_proto::internal::v1::ListVotersRequest;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_runtime::testing::{Said, TestOs};
use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, Os, Step, Waker};

use crate::{Controllers, Follower, is_for, said};

/// A network without controllers: connecting fails at once, or takes for ever.
#[derive(Debug)]
struct NobodyThere {
    rest: TestOs,
    silent: bool,
    connects: AtomicU64,
}

#[async_trait]
impl Os for NobodyThere {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.rest.listen(addr).await
    }

    async fn connect(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Connection>> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        if self.silent {
            std::future::pending::<()>().await;
        }
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.rest.disk()
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        self.rest.executors(wanted)
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        self.rest.block(job);
    }

    fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker {
        self.rest.spawn_loop(name, step)
    }

    fn wall_ms(&self) -> i64 {
        self.rest.wall_ms()
    }

    fn boot_id(&self) -> String {
        self.rest.boot_id()
    }

    fn random_u64(&self) -> u64 {
        self.rest.random_u64()
    }
}

fn nobody(silent: bool) -> (Arc<NobodyThere>, Controllers) {
    let rest = TestOs::new(Arc::new(MemDisk::new(0)));
    let os = Arc::new(NobodyThere { rest, silent, connects: AtomicU64::new(0) });
    let endpoints = vec!["a:1".to_owned(), "b:1".to_owned()];
    (os.clone(), Controllers::new(os, endpoints))
}

const MINUTE: Duration = Duration::from_secs(60);

async fn ask(controllers: &Controllers) -> Result<(), Status> {
    let deadline = Instant::now() + MINUTE;
    let asked = controllers
        .call(deadline, |mut client| async move { client.list_voters(ListVotersRequest {}).await });
    asked.await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_call_asks_a_few_times_a_second() {
    let (os, controllers) = nobody(false);
    ask(&controllers).await.unwrap_err();
    let connects = os.connects.load(Ordering::Relaxed);
    // A pause of 100 to 200 ms between two attempts, shorter ones at the beginning.
    assert!((300..=610).contains(&connects), "{connects}");
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_together_with_the_controllers_tells_people_once_it_lasts() {
    for (lasts_s, told) in [(1, 0), (10, 1)] {
        let (os, _) = nobody(false);
        let controllers = Controllers::patiently(os, vec!["a:1".to_owned(), "b:1".to_owned()]);
        let said = Said::here();
        let deadline = Instant::now() + Duration::from_secs(lasts_s);
        let asked = controllers
            .call(deadline, |mut client| async move { client.list_voters(ListVotersRequest {}).await });
        asked.await.unwrap_err();
        assert_eq!(said.count("no controller takes calls now"), told, "after {lasts_s} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_stay_with_a_controller_that_is_silent() {
    let (os, controllers) = nobody(true);
    ask(&controllers).await.unwrap_err();
    assert_eq!(
        os.connects.load(Ordering::Relaxed),
        2,
        "both were tried, and each attempt is still waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_no_controller_that_leads_hears_who_was_asked_and_what_each_said() {
    let (_, controllers) = nobody(false);
    let gave_up = ask(&controllers).await.unwrap_err();
    assert!(is_for(&gave_up, ErrorReason::ControllerUnavailable), "{gave_up}");
    assert_eq!(
        gave_up.message(),
        "no controller that leads has answered in time; asked: a:1: connection refused; b:1: connection refused"
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_is_put_to_each_once_and_has_no_outcome() {
    for (silent, said) in [(false, "connection refused"), (true, "no answer in time")] {
        let (os, controllers) = nobody(silent);
        let (begun, deadline) = (Instant::now(), Instant::now() + MINUTE);
        let asked = controllers
            .look(deadline, |mut client| async move { client.list_voters(ListVotersRequest {}).await });
        let gave_up = asked.await.unwrap_err();
        assert!(is_for(&gave_up, ErrorReason::ControllerUnavailable), "{gave_up}");
        assert_eq!(gave_up.message(), format!("no controller answers (a:1: {said}; b:1: {said})"));
        assert_eq!(os.connects.load(Ordering::Relaxed), 2);
        // Time passes only while somebody waits for it here.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let (_, controllers) = nobody(true);
    let cut_short = controllers.look(Instant::now() + Duration::from_millis(500), |mut client| async move {
        client.list_voters(ListVotersRequest {}).await
    });
    assert!(is_for(&cut_short.await.unwrap_err(), ErrorReason::ControllerUnavailable));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_know_is_not_the_last_word() {
    let (_, controllers) = nobody(false);
    let nobody_knows =
        || Problem::new(ErrorReason::OutcomeUnknown, "leadership was lost in between").status();
    let answers = [Ok(Response::new(7)), Err(nobody_knows()), Err(Status::unavailable("no leader yet"))];
    let mut answers = answers.into_iter().rev();
    let next = |_| std::future::ready(answers.next().expect("three attempts at most"));
    assert_eq!(controllers.call(Instant::now() + MINUTE, next).await.unwrap(), 7);

    let always = |_| std::future::ready(Err::<Response<i32>, _>(nobody_knows()));
    let gave_up = controllers.call(Instant::now() + MINUTE, always).await.unwrap_err();
    assert!(is_for(&gave_up, ErrorReason::OutcomeUnknown), "{gave_up}");
}

#[tokio::test(start_paused = true)]
async fn a_follower_asks_about_once_a_second() {
    let (os, controllers) = nobody(false);
    let follower = Follower::new(0);
    assert!(timeout(MINUTE, follower.run(&controllers, None)).await.is_err(), "it goes on");
    let connects = os.connects.load(Ordering::Relaxed);
    assert!((60..=130).contains(&connects), "{connects}");
    assert_eq!(follower.refused(), None, "nobody refused anything");
}

#[test]
fn what_answers_and_is_no_controller_is_called_so() {
    let of_a_broker = Status::unimplemented("");
    assert!(
        said(&of_a_broker).starts_with("whoever answers there is not a controller"),
        "{}",
        said(&of_a_broker)
    );
    let of_http = Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404");
    assert!(said(&of_http).ends_with("(grpc-status header missing, mapped from HTTP status code 404)"));
    assert_eq!(said(&Status::unavailable("no leader yet")), "no leader yet");
    assert_eq!(said(&Status::internal("")), tonic::Code::Internal.description());
}
