//! Every controller answers: a call that only the leader can answer is passed on to it, as the bytes that came, one hop.
//!
//! Whoever can reach one controller can so do everything. Brokers go straight to the leader: they say so in the call
//! ([`ROUTE_HEADER`]), are told where it is, and keep a connection to it whose end means something.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::transport::Channel;
use weir_cluster::{ROUTE_DIRECT, ROUTE_HEADER, channel};

use crate::service::Parts;

/// What a controller answers itself, whoever leads: what it is, and streams, which are opened where they belong.
const OWN: [&str; 3] = ["DescribeController", "WatchMetadata", "BrokerSession"];

/// A service that passes on what the leader has to answer.
#[derive(Clone)]
pub(crate) struct Forward<S> {
    parts: Arc<Parts>,
    inner: S,
}

impl<S> Forward<S> {
    pub(crate) fn new(parts: Arc<Parts>, inner: S) -> Self {
        Self { parts, inner }
    }

    /// The way to the leader, if this call is to take it.
    fn way(&self, request: &Request<Body>) -> Option<Result<Channel, Status>> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        if OWN.contains(&method) || request.headers().contains_key(ROUTE_HEADER) {
            return None;
        }
        // Taken out at once (rule 34).
        let metrics = self.parts.raft.server_metrics().borrow().clone();
        let leader = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
        let endpoint = metrics.membership_config.membership().get_node(&leader)?.addr.clone();
        let mut ways = self.parts.ways.lock();
        if let Some((known, way)) = ways.as_ref()
            && *known == endpoint
        {
            return Some(Ok(way.clone()));
        }
        let way = channel(&self.parts.os, &endpoint);
        let way =
            way.map_err(|error| Status::unavailable(format!("the leader's endpoint {endpoint}: {error}")));
        if let Ok(way) = &way {
            *ways = Some((endpoint, way.clone()));
        }
        Some(way)
    }
}

impl<S: NamedService> NamedService for Forward<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Forward<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let way = match self.way(&request) {
            None => return Box::pin(self.inner.call(request)),
            Some(Err(status)) => return Box::pin(async move { Ok(status.into_http()) }),
            Some(Ok(way)) => way,
        };
        // One hop: whoever is asked next answers, or says who leads.
        request.headers_mut().insert(ROUTE_HEADER, HeaderValue::from_static(ROUTE_DIRECT));
        Box::pin(async move {
            let mut way = way;
            let passed = async {
                std::future::poll_fn(|cx| Service::<Request<Body>>::poll_ready(&mut way, cx)).await?;
                way.call(request).await
            };
            // What it did is not known: said as a lost connection is.
            let lost = |error: tonic::transport::Error| {
                let why = weir_rpc::cause(&error, &error.to_string());
                Status::unknown(format!("the connection to the controller that leads has ended: {why}"))
                    .into_http()
            };
            Ok(passed.await.unwrap_or_else(lost))
        })
    }
}
