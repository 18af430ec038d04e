//! The way to the controller that leads.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_runtime::{Os, spread_ms};
use weir_types::ClusterId;

use crate::asked::{Asked, in_words};
use crate::{CLUSTER_HEADER, LEADER_FACT, MESSAGE_BYTES_MAX, ROUTE_DIRECT, ROUTE_HEADER, channel};

/// How long one controller is given to answer before another one is asked.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The same for a question, which each of them can answer from what it has at hand: whoever does not within this time does not
/// answer soon, and people wait.
const GLANCE: Duration = FAIR;
/// Who was given less, because whoever asks has no more time, is not blamed for his silence.
const FAIR: Duration = Duration::from_secs(1);
/// Pause before the next attempt at first, in milliseconds; doubled each time, with jitter.
pub(crate) const PAUSE_MS: u64 = 10;
/// And at most. A change that waits for a new leader among the controllers waits so much longer than the election took.
pub(crate) const PAUSE_MS_MAX: u64 = 200;

/// A client of a controller. Its calls name the cluster that is meant, where that is known.
pub type Client = ControllerServiceClient<InterceptedService<Channel, Meant>>;

/// The cluster that calls mean; and that they are for the controller that is asked, so that the way to the leader is found
/// once and not made longer by a hop each time.
#[derive(Clone, Debug, Default)]
pub struct Meant(Option<AsciiMetadataValue>);

impl Interceptor for Meant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster_id) = &self.0 {
            request.metadata_mut().insert(CLUSTER_HEADER, cluster_id.clone());
        }
        request.metadata_mut().insert(ROUTE_HEADER, AsciiMetadataValue::from_static(ROUTE_DIRECT));
        Ok(request)
    }
}

/// Asks controllers. Knows where they may be, finds out who leads, and remembers it. Cloning gives another handle
/// to the same knowledge.
#[derive(Clone)]
pub struct Controllers(Arc<Inner>);

struct Inner {
    os: Arc<dyn Os>,
    known: Mutex<Known>,
}

struct Known {
    /// Where the configuration says they are.
    configured: Vec<String>,
    /// Where they say they are, then where the configuration says.
    endpoints: Vec<String>,
    /// Who is asked next.
    current: String,
    /// Whose they are to be.
    meant: Meant,
    channels: BTreeMap<String, Channel>,
    /// What they have answered, while none helps.
    asked: Asked,
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.known.lock();
        f.debug_struct("Controllers")
            .field("endpoints", &known.endpoints)
            .field("current", &known.current)
            .finish()
    }
}

impl Controllers {
    /// Controllers at these endpoints, `host:port`.
    pub fn new(os: Arc<dyn Os>, endpoints: Vec<String>) -> Self {
        let current = endpoints.first().cloned().unwrap_or_default();
        let configured = endpoints.clone();
        let known = Mutex::new(Known {
            configured,
            endpoints,
            current,
            meant: Meant::default(),
            channels: BTreeMap::new(),
            asked: Asked::default(),
        });
        Self(Arc::new(Inner { os, known }))
    }

    /// The same for whoever begins together with them, as a controller that joins: that none takes calls is the course of things
    /// for a moment, and people are told once it lasts.
    pub fn patiently(os: Arc<dyn Os>, endpoints: Vec<String>) -> Self {
        let controllers = Self::new(os, endpoints);
        controllers.0.known.lock().asked = Asked::patient();
        controllers
    }

    /// The operating system they are reached through.
    pub fn os(&self) -> &Arc<dyn Os> {
        &self.0.os
    }

    /// Calls from here on are for that cluster alone: a controller of another one, asked by a wrong address, refuses
    /// them. Brokers and epochs are small numbers, which may well mean somebody else there.
    pub fn belong_to(&self, cluster_id: ClusterId) {
        // An id reads as hexadecimal digits.
        self.0.known.lock().meant = Meant(cluster_id.to_string().parse().ok());
    }

    /// Where they are as they say themselves: asked before those that the configuration names.
    pub fn set_endpoints(&self, mut endpoints: Vec<String>) {
        let mut known = self.0.known.lock();
        for configured in &known.configured {
            if !endpoints.contains(configured) {
                endpoints.push(configured.clone());
            }
        }
        let current = known.current.clone();
        known.channels.retain(|endpoint, _| endpoints.contains(endpoint) || *endpoint == current);
        known.endpoints = endpoints;
    }

    /// Asks the leader until it answers or the deadline passes. **The call must be safe to repeat**: it carries a
    /// request id, or an expected version, or says the same twice.
    ///
    /// # Errors
    /// What a controller that could answer refused with; UNAVAILABLE if none could in time, and UNKNOWN if one of them may
    /// have carried it out.
    pub async fn call<T, F, C>(&self, deadline: Instant, call: C) -> Result<T, Status>
    where
        C: FnMut(Client) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = self.ask(deadline, Asks::Change, call).await;
        if answer.is_ok() {
            self.helped();
        }
        answer
    }

    /// Asks whoever answers, also without a quorum, each once: an answer says nothing of whether others are given. It is a
    /// question: whatever became of it, nothing was changed.
    ///
    /// # Errors
    /// What a controller that could answer refused with; UNAVAILABLE if none did.
    pub async fn look<T, F, C>(&self, deadline: Instant, call: C) -> Result<T, Status>
    where
        C: FnMut(Client) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(deadline, Asks::Question, call).await
    }

    async fn ask<T, F, C>(&self, deadline: Instant, asks: Asks, mut call: C) -> Result<T, Status>
    where
        C: FnMut(Client) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = if asks == Asks::Question { GLANCE } else { ATTEMPT };
        let mut pause_ms = PAUSE_MS;
        let mut unknown_outcome = false;
        let mut asked = BTreeMap::new();
        loop {
            let (endpoint, client) = self.client()?;
            let begun = Instant::now();
            let until = deadline.min(begun + attempt);
            let failed = match timeout_at(until, call(client)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) if begun.elapsed() < FAIR => {
                    asked.insert(endpoint, "no answer in time".to_owned());
                    return Err(gave_up(&asked, asks, true));
                }
                Err(_) => Status::unknown("no answer in time"),
            };
            self.learn_from(&endpoint, &failed);
            let refused = failed.code() == Code::Unavailable || self.may_be_another(&failed);
            if !refused && !is_lost(&failed) {
                return Err(failed);
            }
            unknown_outcome |= !refused;
            asked.insert(endpoint.clone(), in_words(&endpoint, &failed));
            let wait = Duration::from_millis(spread_ms(&**self.os(), pause_ms));
            let all = || self.endpoints().iter().all(|endpoint| asked.contains_key(endpoint));
            // What one of them knows another one knows as well: nobody need come back for that.
            let is_over = asks == Asks::Question && all();
            if is_over || Instant::now() + wait >= deadline {
                return Err(gave_up(&asked, asks, unknown_outcome));
            }
            tracing::debug!(%endpoint, %failed, "a controller did not answer, asking again");
            sleep(wait).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    /// Whom to ask next, after one has failed so.
    pub(crate) fn learn_from(&self, endpoint: &str, failed: &Status) {
        let hint = if failed.code() == Code::Unavailable || is_lost(failed) {
            leader_hint(failed)
        } else if is_for(failed, ErrorReason::ClusterMismatch) || failed.code() == Code::Unimplemented {
            // It is another cluster's, or knows too little.
            None
        } else {
            return self.helped();
        };
        let told = {
            let known = &mut *self.0.known.lock();
            known.asked.failed(endpoint, failed, &known.endpoints)
        };
        if let Some(asked) = told {
            tracing::warn!("no controller takes calls now, they are asked on: {asked}");
        }
        self.turn_from(endpoint, hint);
    }

    /// One of them has answered.
    pub(crate) fn helped(&self) {
        if let Some(away) = self.0.known.lock().asked.helped() {
            tracing::info!(?away, "a controller takes calls again");
        }
    }

    /// Where they are, as far as is known.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.0.known.lock().endpoints.clone()
    }

    /// Who is asked, and what each has answered while none helps: for people.
    pub fn asked(&self) -> String {
        let known = self.0.known.lock();
        known.asked.list(&known.endpoints)
    }

    /// The same, once none has helped for so long that people were told.
    pub fn asked_in_vain(&self) -> Option<String> {
        let known = self.0.known.lock();
        known.asked.is_told().then(|| known.asked.list(&known.endpoints))
    }

    /// Whether that was said by somebody who is no controller, where it is not known yet who is one: of several addresses
    /// another one may be right. Where none is, it is the answer.
    fn may_be_another(&self, failed: &Status) -> bool {
        let known = self.0.known.lock();
        failed.code() == Code::Unimplemented
            && known.meant.0.is_none()
            && !known.asked.are_strangers(&known.endpoints)
    }

    /// Asks the controller that led last, once: a refusal is of a request that was never carried out before and never will
    /// be. Whoever is refused for want of a leader finds another one next time.
    ///
    /// # Errors
    /// What it was refused with, or why there is no answer: then nobody knows.
    pub async fn once<T, F, C>(&self, until: Instant, call: C) -> Result<T, Status>
    where
        C: FnOnce(Client) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (endpoint, client) = self.client()?;
        let begun = Instant::now();
        let answer = timeout_at(until, call(client)).await;
        let is_blamed = answer.is_ok() || begun.elapsed() >= FAIR;
        let answer = answer.unwrap_or_else(|_| Err(Status::unknown("no answer in time")));
        match &answer {
            Ok(_) => self.helped(),
            Err(failed) if is_blamed => self.learn_from(&endpoint, failed),
            Err(_) => {}
        }
        answer.map(Response::into_inner)
    }

    /// A connection to whoever is to be asked now.
    pub(crate) fn client(&self) -> Result<(String, Client), Status> {
        let mut known = self.0.known.lock();
        let endpoint = known.current.clone();
        let channel = match known.channels.get(&endpoint) {
            Some(channel) => channel.clone(),
            None => {
                let channel = channel(&self.0.os, &endpoint).map_err(|error| {
                    let said = format!("controller endpoint \"{endpoint}\" is not host:port: {error}");
                    Problem::new(ErrorReason::ControllerUnavailable, said).status()
                })?;
                known.channels.insert(endpoint.clone(), channel.clone());
                channel
            }
        };
        let client = ControllerServiceClient::with_interceptor(channel, known.meant.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok((endpoint, client))
    }

    /// That one did not help: ask the one it named, else the next.
    pub(crate) fn turn_from(&self, endpoint: &str, hint: Option<String>) {
        let mut known = self.0.known.lock();
        if known.current != endpoint {
            return;
        }
        if let Some(leader) = hint.filter(|leader| leader != endpoint) {
            known.current = leader;
            return;
        }
        let at = known.endpoints.iter().position(|known| known == endpoint);
        let next = at.map_or(0, |at| at + 1) % known.endpoints.len().max(1);
        if let Some(next) = known.endpoints.get(next).cloned() {
            known.current = next;
        }
    }
}

/// What a controller answered, or whoever has the address that was taken for one, for people: never empty.
pub fn said(status: &Status) -> String {
    match (status.code(), status.message()) {
        // So answers every gRPC server that lacks the call, and every HTTP server that knows no gRPC.
        (Code::Unimplemented, said) => {
            let rest = if said.is_empty() { String::new() } else { format!(" ({said})") };
            format!(
                "whoever answers there is not a controller: is it the port of one (controller_listen, 9349 by default)?{rest}"
            )
        }
        (code, "") => code.description().to_owned(),
        (_, said) => said.to_owned(),
    }
}

/// The leader's endpoint, if an error names it.
pub fn leader_hint(status: &Status) -> Option<String> {
    fact(status, LEADER_FACT)
}

/// Whether an error was said for that reason.
pub fn is_for(status: &Status, reason: ErrorReason) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == weir_rpc::reasons::name(reason))
}

/// A fact that an error names.
pub fn fact(status: &Status, name: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.get(name).cloned()
}

/// Whether a call ended without an answer that says what became of it. tonic says so in several ways; and a controller may
/// have to say that nobody knows, such as when it stops leading while it writes.
fn is_lost(status: &Status) -> bool {
    let answered = status.get_details_error_info().is_some();
    let codes = [Code::Unknown, Code::Cancelled, Code::Internal, Code::DeadlineExceeded];
    is_for(status, ErrorReason::OutcomeUnknown) || !answered && codes.contains(&status.code())
}

/// Says who was asked, and what each of them said last.
fn gave_up(asked: &BTreeMap<String, String>, asks: Asks, unknown_outcome: bool) -> Status {
    let each: Vec<_> = asked.iter().map(|(endpoint, words)| format!("{endpoint}: {words}")).collect();
    let each = each.join("; ");
    let (reason, said) = match asks {
        Asks::Question => (ErrorReason::ControllerUnavailable, format!("no controller answers ({each})")),
        Asks::Change => {
            let reason = match unknown_outcome {
                true => ErrorReason::OutcomeUnknown,
                false => ErrorReason::ControllerUnavailable,
            };
            (reason, format!("no controller that leads has answered in time; asked: {each}"))
        }
    };
    Problem::new(reason, said).status()
}

/// What controllers are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// It must be decided by the one that leads, and may have been carried out by one that has not answered.
    Change,
    /// It has no outcome.
    Question,
}
