//! Changes that a broker passes on to the controllers, and what it waits for after one.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use weir_cluster::Client;
use weir_metadata::Image;
use weir_proto::v1::ErrorReason;
use weir_rpc::{Problem, deadline};
use weir_runtime::Os;

use super::Cluster;

/// How long a change may take before the caller is told that nobody knows.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a question may take: two of five controllers may hang, a second each, before one is asked that answers. Nothing is
/// lost if none does, and whoever asks shows then what brokers know.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a change is waited for in our own copy, after the controller has carried it out.
const SEEN_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Waits until our own copy has a version, so that the caller of a change finds it here.
    pub(crate) async fn seen(&self, version: i64) {
        self.seen_where(|image| image.version() >= version).await;
    }

    /// Waits until something holds in our own copy, for so long that the caller better does not wait, or until this
    /// process is to end.
    pub(crate) async fn seen_where(&self, holds: impl FnMut(&Image) -> bool) {
        if !self.seen_within(SEEN_TIMEOUT, holds).await {
            let version = self.image().version();
            tracing::warn!(
                version,
                waited = ?SEEN_TIMEOUT,
                "the controller has made a change that this broker does not know of yet: whoever asked for it is \
                 answered now, and may not find it here at once"
            );
        }
    }

    /// The same for so long, without a word of it. Whether it was not in vain.
    pub(crate) async fn seen_within(
        &self,
        patience: Duration,
        mut holds: impl FnMut(&Image) -> bool,
    ) -> bool {
        let mut versions = self.versions();
        let waited = async {
            tokio::select! {
                _ = versions.wait_for(|_| holds(&self.image())) => {}
                () = self.over.requested() => {}
            }
        };
        tokio::time::timeout(patience, waited).await.is_ok()
    }

    /// Passes a change on to the controller that leads, within its time. It may be sent more than once: it must say
    /// the same twice, or carry a request id. While there is none that this broker may follow nothing is passed on:
    /// one that was restored would give out ids a second time.
    pub(crate) async fn change<Q, T, F>(&self, request: Q, call: impl Fn(Client, Q) -> F) -> Result<T, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.change_by(Instant::now() + CHANGE_TIMEOUT, request, call).await
    }

    /// Nothing is asked of controllers that may not be followed.
    fn check_trouble(&self) -> Result<(), Status> {
        let refusal = |trouble| Problem::new(ErrorReason::ControllerUnavailable, trouble).status();
        self.trouble().map_or(Ok(()), |trouble| Err(refusal(trouble)))
    }

    /// The same for somebody who waits for it: answered by then (see [`answer_by`]).
    pub(crate) async fn change_by<Q, T, F>(
        &self,
        until: Instant,
        request: Q,
        call: impl Fn(Client, Q) -> F,
    ) -> Result<T, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.check_trouble()?;
        self.controllers.call(until, |client| call(client, request.clone())).await
    }

    /// Asks whichever controller answers, also without a quorum, what it only knows: answered by then (see [`tell_by`]).
    pub(crate) async fn look_by<T, F>(&self, until: Instant, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.check_trouble()?;
        self.controllers.look(until, call).await
    }

    /// The same as a change, asked once: what is refused was not carried out, and never will be.
    pub(crate) async fn once<T, F>(&self, until: Instant, call: impl FnOnce(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.check_trouble()?;
        self.controllers.once(until, call).await
    }
}

/// When whoever asks for a change is answered at the latest: within his own time, so that he hears who was asked and what
/// they said, and not merely that his time is over.
pub(crate) fn answer_by<T>(request: &Request<T>) -> Instant {
    deadline::wait_until(CHANGE_TIMEOUT, deadline::of(request.metadata()))
}

/// The same for whoever asks a question.
pub(crate) fn tell_by<T>(request: &Request<T>) -> Instant {
    deadline::wait_until(QUESTION_TIMEOUT, deadline::of(request.metadata()))
}

/// A change that may be sent twice has an id; callers who gave none get one.
pub(crate) fn ensure_request_id(os: &dyn Os, request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = format!("{:032x}", os.random_u128());
    }
}
