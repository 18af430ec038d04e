//! The consuming half of the load generator: FetchStreams with credit, every batch checked.
//!
//! Offsets must follow one another without a gap from the start to the end, and every payload's CRC must hold.

use std::sync::Arc;

use anyhow::{bail, ensure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::{
    BatchDelivery, FetchAssign, FetchCredit, FetchHello, FetchStreamRequest, FetchStreamResponse, Route,
    fetch_stream_request as request, fetch_stream_response as response,
};

use crate::connect::{MESSAGE_BYTES_MAX, connect};
use crate::report::Counts;

/// What one connection reads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port`.
    pub server: String,
    /// Whether the server may pass on what others lead. It is refused otherwise.
    pub route: Route,
    /// The topic.
    pub topic: String,
    /// Partition, first offset, and the offset to stop before.
    pub ranges: Arc<[(i32, i64, i64)]>,
    /// How many bytes the server may have on the way.
    pub credit_bytes: i64,
    /// Whether to compute each payload's CRC.
    pub check_crc: bool,
}

/// A stream that was welcomed and waits for the start.
pub struct Consumer {
    plan: Plan,
    /// By position in `plan.ranges`, which is the subscription id: the next offset.
    next: Vec<i64>,
    requests: mpsc::UnboundedSender<FetchStreamRequest>,
    deliveries: Streaming<FetchStreamResponse>,
}

impl Consumer {
    /// Connects, says hello and waits for the welcome, so that none of this is timed.
    ///
    /// # Errors
    /// If the server cannot be reached or does not welcome.
    pub async fn open(plan: Plan) -> anyhow::Result<Self> {
        let (requests, body) = mpsc::unbounded_channel();
        let hello = FetchHello {
            client: "weir-bench".to_owned(),
            version_min: 1,
            version_max: 1,
            route: plan.route.into(),
            message_bytes_max: i32::try_from(MESSAGE_BYTES_MAX).unwrap_or(i32::MAX),
            ..FetchHello::default()
        };
        requests.send(FetchStreamRequest { frame: Some(request::Frame::Hello(hello)) })?;
        let channel = connect(&plan.server).await?;
        let mut deliveries = ConsumerServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .fetch_stream(UnboundedReceiverStream::new(body))
            .await?
            .into_inner();
        match deliveries.message().await?.and_then(|message| message.frame) {
            Some(response::Frame::Welcome(_)) => {}
            other => bail!("not a welcome: {other:?}"),
        }
        let next = plan.ranges.iter().map(|(_, first, _)| *first).collect();
        Ok(Self { plan, next, requests, deliveries })
    }

    /// Reads everything and checks it.
    ///
    /// # Errors
    /// At the first batch that is missing, repeated, out of order or damaged.
    pub async fn run(mut self) -> anyhow::Result<Counts> {
        for (id, (partition, first, _)) in self.plan.ranges.iter().enumerate() {
            let assign = FetchAssign {
                subscription_id: i64::try_from(id)?,
                topic: self.plan.topic.clone(),
                partition: *partition,
                offset: *first,
                ..FetchAssign::default()
            };
            self.requests.send(FetchStreamRequest { frame: Some(request::Frame::Assign(assign)) })?;
        }
        self.credit(self.plan.credit_bytes)?;
        let mut counts = Counts::default();
        let mut used = 0;
        while !self.is_done() {
            let Some(message) = self.deliveries.message().await? else { bail!("the stream ended early") };
            match message.frame {
                Some(response::Frame::Delivery(delivery)) => used += self.check(&delivery, &mut counts)?,
                Some(response::Frame::End(end)) => bail!("the subscription ended: {end:?}"),
                Some(response::Frame::Goodbye(goodbye)) => bail!("the server ends the stream: {goodbye:?}"),
                Some(response::Frame::Heartbeat(_) | response::Frame::Welcome(_)) | None => {}
            }
            if used >= self.plan.credit_bytes / 4 {
                self.credit(used)?;
                used = 0;
            }
        }
        Ok(counts)
    }

    fn credit(&self, bytes: i64) -> anyhow::Result<()> {
        let credit = FetchCredit { bytes, ..FetchCredit::default() };
        self.requests.send(FetchStreamRequest { frame: Some(request::Frame::Credit(credit)) })?;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.next.iter().zip(self.plan.ranges.iter()).all(|(next, (_, _, end))| next >= end)
    }

    fn check(&mut self, delivery: &BatchDelivery, counts: &mut Counts) -> anyhow::Result<i64> {
        let Some(batch) = &delivery.batch else { bail!("a delivery without a batch") };
        let Some(next) = self.next.get_mut(usize::try_from(delivery.subscription_id)?) else {
            bail!("subscription {} was not asked for", delivery.subscription_id);
        };
        ensure!(batch.base_offset == *next, "offset {} where {next} was due", batch.base_offset);
        ensure!(
            !self.plan.check_crc || crc32fast::hash(&batch.records) == batch.crc,
            "the payload at offset {} is damaged",
            batch.base_offset
        );
        *next += i64::from(batch.last_offset_delta) + 1;
        ensure!(delivery.next_offset == *next, "next offset {} where {next} was due", delivery.next_offset);
        counts.bytes += batch.records.len() as u64;
        counts.batches += 1;
        counts.records += u64::try_from(batch.record_count)?;
        Ok(i64::try_from(batch.records.len())?)
    }
}
