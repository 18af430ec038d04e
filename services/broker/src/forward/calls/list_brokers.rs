//! ListBrokers: which brokers there are is known here; the space of its directories, and which others it does not reach,
//! each broker knows of its own.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};
use tonic::Request;
use weir_proto::codec::Encoded;
use weir_proto::v1::{BrokerDescription, ListBrokersRequest, ListBrokersResponse};
use weir_rpc::deadline;
use weir_types::BrokerId;

use crate::calls;
use crate::calls::shared::page;
use crate::forward::hop;
use crate::forward::unary::{About, Answer, Answered, Caller, put_together, read, with};

pub(in crate::forward) const PATH: &str = "/weir.v1.AdminService/ListBrokers";

/// How many brokers are asked at the same time.
const ASKED_AT_ONCE: usize = 64;
/// How long one is waited for, while a person looks. A list without the space of one that hangs is worth more than none.
const WAIT: Duration = Duration::from_secs(1);

/// Answers the call, with what the others say of their directories. Of one that does not answer, a directory has no path.
pub(in crate::forward) async fn call(
    caller: Caller,
    request: Request<Encoded>,
) -> Answer<ListBrokersResponse> {
    let until = deadline::wait_until(WAIT, deadline::of(request.metadata()));
    // Wherever it came in: an address that leads to a public listener would be asked on and on.
    let is_asked_on = request.metadata().contains_key(hop::FORWARDED);
    let asked: ListBrokersRequest = read(request.get_ref())?;
    let mut page = calls::admin::list_brokers(&caller.broker, with(request, asked))?.into_inner();
    let (image, own) = (caller.broker.cluster.image(), caller.broker.cluster.broker_id());
    if is_asked_on {
        return Ok(tonic::Response::new(Answered::Here(page)));
    }
    let others = page.brokers.iter().map(|broker| BrokerId(broker.broker_id));
    let others = others.filter(|id| *id != own && caller.broker.peers.knows(&image, *id));
    let told: Vec<_> = stream::iter(others.collect::<Vec<_>>())
        .map(|id| own_word(&caller, id, image.version(), until))
        .buffer_unordered(ASKED_AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let mut owners = Vec::with_capacity(told.len());
    for own_word in told {
        owners.push(BrokerId(own_word.broker_id));
        take_own_word(&mut page.brokers, own_word);
    }
    Ok(match owners.is_empty() {
        true => tonic::Response::new(Answered::Here(page)),
        false => put_together(page, owners.into_iter()),
    })
}

/// What a broker says of itself; `None`: nothing, in time.
async fn own_word(caller: &Caller, id: BrokerId, version: i64, until: Instant) -> Option<BrokerDescription> {
    // The page that begins with it.
    let page_token = page::token(version, &id.0.saturating_sub(1).to_string());
    let asked = ListBrokersRequest { page_size: 1, page_token };
    let about = About { path: PATH, topic: "", partition: 0, changes: false };
    let answer = timeout_at(until, caller.ask_part::<_, ListBrokersResponse>(id, about, &asked)).await;
    match answer {
        Ok(Ok(answer)) => answer.brokers.into_iter().find(|broker| broker.broker_id == id.0),
        Ok(Err(status)) => {
            tracing::debug!(broker = %id, said = status.message(), "a broker does not say how its disk is");
            None
        }
        Err(_) => {
            tracing::debug!(broker = %id, "a broker does not say how its disk is");
            None
        }
    }
}

/// The directories are as their broker says, and whom it does not reach; all else is as it is known here. One that has
/// registered again since is another broker's word.
fn take_own_word(page: &mut [BrokerDescription], own_word: BrokerDescription) {
    let same = |broker: &&mut BrokerDescription| {
        (broker.broker_id, broker.broker_epoch) == (own_word.broker_id, own_word.broker_epoch)
    };
    if let Some(broker) = page.iter_mut().find(same) {
        calls::admin::take_directories(broker, own_word.directories);
        broker.unreached = own_word.unreached;
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{LogDirectory, UnreachedBroker};

    use super::*;

    fn broker(broker_id: i32, broker_epoch: i64, path: &str) -> BrokerDescription {
        let directory = LogDirectory { path: path.to_owned(), ..LogDirectory::default() };
        BrokerDescription {
            broker_id,
            broker_epoch,
            directories: vec![directory],
            ..BrokerDescription::default()
        }
    }

    #[test]
    fn a_broker_is_believed_of_its_own_directories_alone() {
        let mut page = [broker(1, 5, "/one"), broker(2, 7, ""), broker(3, 8, "")];
        let unreached = vec![UnreachedBroker { broker_id: 3, ..UnreachedBroker::default() }];
        let own_word = BrokerDescription { leaders: 9, unreached: unreached.clone(), ..broker(2, 7, "/two") };
        take_own_word(&mut page, own_word);
        take_own_word(&mut page, broker(3, 6, "/earlier"));
        take_own_word(&mut page, broker(4, 1, "/unheard-of"));
        let paths = page.each_ref().map(|broker| broker.directories[0].path.as_str());
        assert_eq!(paths, ["/one", "/two", ""]);
        assert_eq!((page[1].leaders, &page[1].unreached), (0, &unreached), "who leads what is known here");
    }

    #[test]
    fn what_has_failed_is_on_record_whatever_its_broker_says_of_it() {
        let directory = |id: &str, failures: &[i64], online| LogDirectory {
            directory_id: id.to_owned(),
            failures: failures.to_vec(),
            online,
            ..LogDirectory::default()
        };
        let recorded =
            vec![directory("a", &[77], false), directory("b", &[], true), directory("c", &[78], false)];
        let mut page = [BrokerDescription { directories: recorded.clone(), ..broker(1, 5, "") }];
        let own = vec![directory("a", &[], true), directory("b", &[], true)];
        take_own_word(&mut page, BrokerDescription { directories: own, ..broker(1, 5, "") });
        assert_eq!(page[0].directories, recorded, "the third one it has come without");
    }
}
