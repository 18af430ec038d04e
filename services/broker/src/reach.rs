//! Brokers that the controllers hear and this one does not reach. A broker that dies is fenced within a session; one that
//! lives on and is not reached for longer most often tells others a wrong address (`internal_advertised_address`), and nobody
//! else can say so: it serves its clients, and the controllers hear it. People are told once, and again seldom.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_metadata::Image;
use weir_proto::v1::UnreachedBroker;
use weir_types::BrokerId;

use crate::forward::peers;

/// A broker that restarts is not reached for a moment, and is fenced within a session if it does not come back.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often people are told again.
const AGAIN: Duration = Duration::from_secs(300);
/// What failed so long ago says nothing of now: nobody has tried since.
const STALE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<BTreeMap<BrokerId, Missed>>);

/// A broker that was tried in vain since it was reached last.
#[derive(Debug)]
struct Missed {
    address: String,
    why: String,
    since: Instant,
    last: Instant,
    told: Option<Instant>,
}

impl Missed {
    fn is_told(&self) -> bool {
        self.told.is_some() && self.last.elapsed() < STALE && self.lasts()
    }

    fn lasts(&self) -> bool {
        self.since.elapsed() >= PATIENCE
    }

    fn said(&self, broker: BrokerId) -> String {
        let Self { address, why, .. } = self;
        format!(
            "broker {broker} is heard by the controllers and not reached by this one at {address} ({why}): is that where \
             it listens for brokers (its internal_advertised_address)? Until it is, what it leads is not replicated here, \
             and calls are not passed on to it"
        )
    }
}

impl Reach {
    /// A broker did not answer, or somebody else did. `is_current`: the controllers are heard here, so that what the image
    /// says of it is of now. Else it may have died, and nobody has said so: what fails then counts for nothing.
    pub(crate) fn missed(&self, image: &Image, broker: BrokerId, why: &str, is_current: bool) {
        let mut all = self.0.lock();
        // Nobody says of one that is not there where it is.
        let Some(address) = peers::address(image, broker) else { return drop(all.remove(&broker)) };
        let now = Instant::now();
        let new =
            || Missed { address: address.clone(), why: String::new(), since: now, last: now, told: None };
        let missed = all.entry(broker).or_insert_with(new);
        if missed.address != address || now - missed.last >= STALE {
            *missed = new();
        }
        let why = why.strip_prefix(&format!("cannot connect to {address}: ")).unwrap_or(why);
        (missed.last, missed.why) = (now, why.to_owned());
        if !is_current {
            missed.since = now;
        }
        if missed.lasts() && missed.told.is_none_or(|told| now - told >= AGAIN) {
            missed.told = Some(now);
            tracing::warn!("{}", missed.said(broker));
        }
    }

    /// It has answered.
    pub(crate) fn reached(&self, broker: BrokerId) {
        let missed = self.0.lock().remove(&broker);
        if missed.is_some_and(|missed| missed.told.is_some()) {
            tracing::info!(broker = broker.0, "a broker is reached again");
        }
    }

    /// Those that are not reached now, as people are told of them.
    pub(crate) fn now(&self, image: &Image) -> Vec<String> {
        self.told(image, |broker, missed| missed.said(broker))
    }

    /// The same, for who asks.
    pub(crate) fn unreached(&self, image: &Image) -> Vec<UnreachedBroker> {
        self.told(image, |broker, Missed { address, why, .. }| UnreachedBroker {
            broker_id: broker.0,
            address: address.clone(),
            why: why.clone(),
        })
    }

    fn told<T>(&self, image: &Image, said: impl Fn(BrokerId, &Missed) -> T) -> Vec<T> {
        let mut all = self.0.lock();
        all.retain(|broker, missed| peers::address(image, *broker).as_ref() == Some(&missed.address));
        let told = all.iter().filter(|(_, missed)| missed.is_told());
        told.map(|(broker, missed)| said(*broker, missed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use weir_metadata::{Broker, BrokerState, Endpoint, ImageHead, ImageParts};
    use weir_runtime::testing::{Said, listen};

    use super::*;

    const OTHER: BrokerId = BrokerId(2);

    fn image(state: BrokerState, host: &str) -> Image {
        let mut parts = ImageParts::new(ImageHead { version: 1, ..Image::default().head() });
        let internal = Endpoint { listener: "internal".to_owned(), host: host.to_owned(), port: 9350 };
        parts.broker(Broker {
            id: OTHER,
            epoch: 1,
            state,
            persisted_epoch: 1,
            directories: Vec::new(),
            rack: String::new(),
            endpoints: vec![internal],
            version: String::new(),
            registered_ms: 0,
            incarnation: 1,
            failed: Vec::new(),
            stopped: false,
        });
        parts.finish()
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_lives_and_is_not_reached_is_said_once_and_again_seldom() {
        listen();
        let (said, reach) = (Said::here(), Reach::default());
        let told = || said.count("internal_advertised_address");
        let wrong = image(BrokerState::Active, "wrong.example");
        reach.missed(&wrong, OTHER, "connection refused", true);
        assert!(reach.now(&wrong).is_empty() && told() == 0, "it may have just died");
        for _ in 0..600 {
            advance(Duration::from_secs(1)).await;
            reach.missed(&wrong, OTHER, "cannot connect to wrong.example:9350: connection refused", true);
        }
        assert_eq!(told(), 2, "in ten minutes");
        let now = reach.now(&wrong);
        assert_eq!(now.len(), 1);
        for words in ["broker 2", "at wrong.example:9350 (connection refused)"] {
            assert!(now[0].contains(words), "{now:?}");
        }
        let (address, why) = ("wrong.example:9350".to_owned(), "connection refused".to_owned());
        assert_eq!(reach.unreached(&wrong), [UnreachedBroker { broker_id: 2, address, why }]);
        assert!(reach.now(&image(BrokerState::Active, "right.example")).is_empty(), "it has moved");
        reach.missed(&wrong, OTHER, "connection refused", true);
        reach.reached(OTHER);
        assert!(reach.now(&wrong).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_there_or_was_not_tried_lately_is_not_said() {
        let reach = Reach::default();
        let there = image(BrokerState::Active, "right.example");
        let miss_for = async |image: &Image, seconds: u64| {
            for _ in 0..=seconds {
                reach.missed(image, OTHER, "no answer in time", true);
                advance(Duration::from_secs(1)).await;
            }
        };
        miss_for(&image(BrokerState::Fenced, "right.example"), 60).await;
        assert!(reach.now(&there).is_empty(), "the controllers do not hear it either");
        miss_for(&there, PATIENCE.as_secs()).await;
        assert_eq!(reach.now(&there).len(), 1);
        advance(STALE).await;
        assert!(reach.now(&there).is_empty(), "nobody has tried since");
        reach.missed(&there, OTHER, "no answer in time", true);
        assert!(reach.now(&there).is_empty(), "that is another time");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_reached_while_no_controller_is_heard_may_have_died() {
        listen();
        let (said, reach) = (Said::here(), Reach::default());
        let there = image(BrokerState::Active, "right.example");
        let miss_for = async |seconds: u64, is_current: bool| {
            for _ in 0..=seconds {
                reach.missed(&there, OTHER, "connection refused", is_current);
                advance(Duration::from_secs(1)).await;
            }
        };
        let told = || said.count("internal_advertised_address");
        miss_for(600, false).await;
        assert!(reach.now(&there).is_empty() && told() == 0);
        miss_for(PATIENCE.as_secs() - 2, true).await;
        assert!(
            reach.now(&there).is_empty() && told() == 0,
            "they have just come back, and are about to find out"
        );
        miss_for(2, true).await;
        assert_eq!((reach.now(&there).len(), told()), (1, 1), "they hear it");
        miss_for(1, false).await;
        assert!(reach.now(&there).is_empty(), "what was so before they went is not said to be so now");
    }
}
