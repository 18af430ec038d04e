//! What clients are told while a broker starts: its listener is open before it serves, so that whoever asks learns what is up and
//! what it waits for, instead of nothing. Most starts are over in a moment, and a call that comes meanwhile waits for that; where
//! controllers have no quorum a start takes as long as that takes, and the call is refused, to be tried again.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use http::{Request, Response};
use tokio::time::timeout;
use tonic::body::Body;
use tower::{Layer, Service};
use weir_proto::v1::ErrorReason;
use weir_rpc::{Problem, STARTING_FACT};
use weir_types::Endpoint;

use crate::broker::Broker;

/// How long a call waits for the end of the start: people who look want to know within a second.
pub(crate) const MOMENT: Duration = Duration::from_millis(500);

/// Wraps the routes of a server.
#[derive(Clone)]
pub(crate) struct StartingLayer {
    broker: Arc<Broker>,
    /// Where clients find it.
    at: Endpoint,
}

impl StartingLayer {
    pub(crate) fn new(broker: &Arc<Broker>, at: &Endpoint) -> Self {
        Self { broker: broker.clone(), at: at.clone() }
    }
}

impl<S> Layer<S> for StartingLayer {
    type Service = Starting<S>;

    fn layer(&self, inner: S) -> Starting<S> {
        Starting { inner, layer: self.clone() }
    }
}

/// A wrapped service.
#[derive(Clone)]
pub(crate) struct Starting<S> {
    inner: S,
    layer: StartingLayer,
}

impl<S, B> Service<Request<B>> for Starting<S>
where
    S: Service<Request<B>, Response = Response<Body>, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.layer.broker.ready.initialized() {
            return Either::Left(self.inner.call(request));
        }
        let StartingLayer { broker, at } = self.layer.clone();
        // The one that was asked whether it is ready takes the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let waits = async move {
            match timeout(MOMENT, broker.ready.wait()).await {
                Ok(()) => inner.call(request).await,
                Err(_) => Ok(refusal(&broker, &at).status().into_http()),
            }
        };
        Either::Right(waits.boxed())
    }
}

/// Which broker is up, where, and what it waits for.
fn refusal(broker: &Broker, at: &Endpoint) -> Problem {
    let who = match broker.cluster.known_as() {
        Some(id) => format!("broker {id}"),
        None => "a new broker".to_owned(),
    };
    let said = format!("{who} at {at} is up and does not serve yet: {}", broker.awaited());
    Problem::new(ErrorReason::ControllerUnavailable, said).fact(STARTING_FACT, true)
}
