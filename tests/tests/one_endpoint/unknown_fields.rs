//! Bytes are passed on, not messages: what only client and owner know arrives.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};
use weir_proto::v1::ProduceResponse;
use weir_tests::cluster::Cluster;

use crate::said::{cluster_with, direct, reason, stranger_and_leader, to_one};

/// Messages made by hand.
#[derive(Clone, Default)]
struct ByHand;

impl Codec for ByHand {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for ByHand {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for ByHand {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[tokio::test]
async fn a_field_that_the_broker_in_between_does_not_know_is_not_lost() {
    let cluster = cluster_with("flights", 3).await;
    let (stranger, _) = stranger_and_leader(&cluster, "flights", 0).await;
    let call = async |at: usize, message: Vec<u8>| {
        let mut grpc = Grpc::new(cluster.channel(at));
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/weir.v1.ProducerService/Produce");
        let answer = grpc.unary(Request::new(Bytes::from(message)), path, ByHand).await;
        answer.map(|answer| ProduceResponse::decode(answer.into_inner()).unwrap())
    };
    // A field of no version, of a size that shows on the way.
    let unknown = |mut message: Vec<u8>| {
        encode_key(99, WireType::LengthDelimited, &mut message);
        encode_varint(20_000, &mut message);
        message.extend(vec![7; 20_000]);
        message
    };
    assert_eq!(forwarded_bytes(&cluster, stranger).await, 0);
    let plain = to_one("flights", 0, "x");
    let written = call(stranger, unknown(plain.encode_to_vec())).await.unwrap();
    assert_eq!(written.receipts[0].base_offset, 0);
    let passed = forwarded_bytes(&cluster, stranger).await;
    assert!(passed > 20_000, "{passed} bytes were passed on");
    // What comes last counts: a part that was made anew would not have it.
    let mut told_at_the_end = plain.encode_to_vec();
    told_at_the_end.extend(direct(Default::default()).encode_to_vec());
    let refused = call(stranger, told_at_the_end).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_LEADER");
    cluster.stop().await;
}

async fn forwarded_bytes(cluster: &Cluster, at: usize) -> u64 {
    let name = "weir_forwarded_bytes_total{call=\"Produce\"}";
    cluster.metric(at, name).await.map_or(0, |value| value as u64)
}
