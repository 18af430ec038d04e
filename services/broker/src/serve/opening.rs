//! What clients are told before there is a broker, while its logs are opened: that may take long after a crash, and whoever asks
//! is to learn what is up and how far it is, instead of nothing. A connection of then is served on as any other.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::SetOnce;
use tokio::time::timeout;
use tonic::body::Body;
use tower::{BoxError, Service, ServiceExt};
use weir_proto::v1::ErrorReason;
use weir_rpc::{Problem, STARTING_FACT};
use weir_types::Endpoint;

use super::Answers;
use crate::http::Shown;
use crate::starting::MOMENT;

/// What is said meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) shown: Arc<Shown>,
    /// Where clients find the broker.
    pub(super) at: Endpoint,
}

impl Opening {
    fn refusal(&self) -> Problem {
        let said = format!("a broker at {} is up and does not serve yet: {}", self.at, self.shown.opening());
        Problem::new(ErrorReason::ControllerUnavailable, said).fact(STARTING_FACT, true)
    }
}

/// Answers calls as soon as there is something that does.
pub(super) struct Gate<S> {
    pub(super) opening: Opening,
    pub(super) made: Arc<SetOnce<S>>,
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { opening: self.opening.clone(), made: self.made.clone() }
    }
}

impl<S: Answers> Service<Request<Body>> for Gate<S> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { opening, made } = self.clone();
        let answer = async move {
            match timeout(MOMENT, made.wait()).await {
                Ok(service) => {
                    let answer = service.clone().oneshot(request).await.map_err(Into::into)?;
                    Ok(answer.map(Body::new))
                }
                Err(_) => Ok(opening.refusal().status().into_http()),
            }
        };
        answer.boxed()
    }
}
