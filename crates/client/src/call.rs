//! One question, one answer: deadlines, retries, and the choice of a broker.
//!
//! Any broker answers any call, so a broker that cannot be reached is passed over. Every call that is made here may
//! be repeated without harm: it reads, or does again what is done already, or carries a request id by which the
//! server knows it again. What may not be repeated, an append, does not go this way.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::backoff::Backoff;
use crate::channel::Purpose;
use crate::client::Inner;
use crate::error::Applied;
use crate::{Error, Result};
use weir_types::Endpoint;

/// How long a broker may take for what it has at hand before another is asked. Twice as long the next time: all may be
/// slow.
const PROMPT: Duration = Duration::from_secs(2);

/// A call that is made until it is over, or nobody waits for it any more: then nothing is tried again.
struct Trying<'a>(&'a Inner);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.try_again(None);
    }
}

impl Inner {
    /// Makes a call on the client's runtime, within the client's `call_timeout`.
    pub(crate) async fn call<Q, A, F, Fut>(
        self: &Arc<Self>,
        what: &'static str,
        request: Q,
        send: F,
    ) -> Result<A>
    where
        Q: Clone + Send + Sync + 'static,
        A: Send + 'static,
        F: Fn(Channel, Request<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let inner = Arc::clone(self);
        self.io.run(async move { inner.call_here(what, request, &send).await }).await
    }

    /// The same, for those who are on the client's runtime already.
    pub(crate) async fn call_here<Q, A, F, Fut>(&self, what: &'static str, request: Q, send: &F) -> Result<A>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_patiently(None, what, request, send).await
    }

    /// The same for what every broker has at hand: one that does not say it soon is left for another, if there is one.
    pub(crate) async fn call_promptly<Q, A, F, Fut>(
        &self,
        what: &'static str,
        request: Q,
        send: &F,
    ) -> Result<A>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_patiently(Some(PROMPT), what, request, send).await
    }

    /// One attempt, for those who try again by themselves.
    pub(crate) async fn call_once<Q, A, F, Fut>(&self, what: &'static str, request: Q, send: &F) -> Result<A>
    where
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.attempt(what, &self.broker_to_ask(), request, Instant::now() + PROMPT, send).await
    }

    async fn call_patiently<Q, A, F, Fut>(
        &self,
        patience: Option<Duration>,
        what: &'static str,
        request: Q,
        send: &F,
    ) -> Result<A>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let began = Instant::now();
        let deadline = began + self.options.call_timeout;
        let mut patience = patience.filter(|_| self.brokers_known() > 1);
        let mut backoff = Backoff::usual();
        let mut unreachable = 0;
        // Who was not there since the last wait.
        let mut passed_over = Vec::new();
        let mut last: Option<Arc<Error>> = None;
        // Whether an attempt before this one may have been carried out.
        let mut maybe = false;
        let _until_over = Trying(self);
        loop {
            let address = self.broker_to_ask();
            let attempt = self.attempt(what, &address, request.clone(), deadline, send);
            let answer = match patience {
                None => attempt.await,
                Some(patience) => {
                    let late = |_| Err(Error::lost(format!("{address} did not answer within {patience:?}")));
                    tokio::time::timeout(patience, attempt).await.unwrap_or_else(late)
                }
            };
            patience = patience.map(|patience| patience * 2);
            let error = match (answer, last.take()) {
                (Ok(answer), _) => return Ok(answer),
                // What it was tried again for says more than that time is up.
                (Err(Error::Timeout { what, after, applied }), Some(last)) => {
                    Error::GivenUp { what, after, applied, last }
                }
                (Err(error), _) => error,
            };
            let again = match error.applied() {
                Applied::No => error.retry_after().is_some(),
                Applied::Maybe => error.is_about_the_connection(),
                Applied::Yes => false,
            };
            // One that is not there is no reason to wait: everybody else is asked first, each once. That is how a client hears
            // who leads instead of the broker that it was used to ask.
            let mut goes_on = false;
            if error.is_about_the_connection() {
                self.pass_over(&address);
                unreachable += 1;
                passed_over.push(address.clone());
                goes_on = !passed_over.contains(&self.broker_to_ask());
            }
            // Nobody is there: say so at once rather than after the whole timeout, but ask everybody we know.
            let nobody = matches!(error, Error::Unreachable { .. }) && unreachable >= self.brokers_known();
            let wait = (!goes_on).then(|| backoff.next(&*self.os, error.asked_to_wait()));
            let late = Instant::now() + wait.unwrap_or_default() >= deadline;
            if !again || nobody && !self.was_connected() || late {
                return Err(match error.applied() {
                    // What an attempt before may have done is not undone by what became of the last.
                    Applied::No if maybe && !error.is_for_good() => Error::GivenUp {
                        what: what.into(),
                        after: Duration::from_millis(
                            u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                        ),
                        applied: Applied::Maybe,
                        last: Arc::new(error),
                    },
                    _ => error,
                });
            }
            maybe |= error.applied() == Applied::Maybe;
            tracing::debug!(call = what, broker = %address, %error, "trying again");
            last = Some(Arc::new(error.clone()));
            self.try_again(Some(error));
            if let Some(wait) = wait {
                passed_over.clear();
                tokio::time::sleep(wait).await;
            }
        }
    }

    async fn attempt<Q, A, F, Fut>(
        &self,
        what: &'static str,
        address: &Endpoint,
        request: Q,
        deadline: Instant,
        send: &F,
    ) -> Result<A>
    where
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let channel = self.channels.get(&self.io, address, Purpose::Calls)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = Request::new(request);
        // The server is told, so that it can answer before we stop listening; the clock that counts is ours.
        request.set_timeout(left);
        match tokio::time::timeout(left + Duration::from_millis(50), send(channel, request)).await {
            Ok(Ok(answer)) => {
                self.connected();
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => {
                Err(Error::of_call(what, &address.to_string(), self.options.call_timeout, &status))
            }
            Err(_) => Err(Error::unanswered(what, &address.to_string(), self.options.call_timeout)),
        }
    }
}
