//! Readers for checks: everything a partition holds, by each of the ways there are to read it.

use anyhow::{Context, Result, ensure};
use tokio_stream::wrappers::ReceiverStream;
use weir_proto::v1::fetch_stream_request::Frame as Request;
use weir_proto::v1::fetch_stream_response::Frame as Response;
use weir_proto::v1::{
    ConsumeRequest, FetchAssign, FetchCredit, FetchHello, FetchPartition, FetchRequest, FetchStreamRequest,
    RecordBatch, RecordFormat, TopicPartitionOffset,
};
use weir_record::{Codec, Decompressor, Records};

use crate::api::Api;
use crate::history::{Place, Reading};

/// A record's offset and value.
pub type Record = (i64, Vec<u8>);

/// Opens a stored batch: checks what it declares, and gives offsets and values.
///
/// # Errors
/// The batch is not what it says.
pub fn open(batch: &RecordBatch) -> Result<Vec<Record>> {
    ensure!(weir_record::crc(&batch.records) == batch.crc, "the crc of {}", batch.base_offset);
    let declared = usize::try_from(batch.uncompressed_bytes)?;
    let codec = Codec::from_api(batch.codec)?;
    let set =
        Decompressor::new().decompress(codec, &batch.records, declared, weir_record::BATCH_BYTES_MAX)?;
    let records = Records::new(&set, batch.last_offset_delta)
        .map(|record| {
            let record = record?;
            let value = record.value.context("these tests write values")?;
            Ok((batch.base_offset + i64::from(record.offset_delta), value.to_vec()))
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(records.len() == usize::try_from(batch.record_count)?, "{} records in {batch:?}", records.len());
    Ok(records)
}

/// Reads with Consume, as records.
///
/// # Errors
/// It cannot be read to its end.
pub async fn consume(api: &Api, place: &Place) -> Result<Reading> {
    let position = TopicPartitionOffset {
        topic: place.topic.clone(),
        partition: place.partition,
        ..TopicPartitionOffset::default()
    };
    let request = ConsumeRequest { positions: vec![position], until_end: true, ..ConsumeRequest::default() };
    let mut stream = api.consumer().consume(request).await?.into_inner();
    let mut reading = Reading { place: place.clone(), high_watermark: 0, polls: Vec::new() };
    while let Some(message) = stream.message().await? {
        for progress in &message.progress {
            reading.high_watermark = reading.high_watermark.max(progress.high_watermark);
        }
        let value = |value: Option<prost::bytes::Bytes>| value.unwrap_or_default().to_vec();
        reading
            .polls
            .push(message.records.into_iter().map(|record| (record.offset, value(record.value))).collect());
    }
    Ok(reading)
}

/// Reads with Fetch, as batches.
///
/// # Errors
/// It cannot be read to its end.
pub async fn fetch(api: &Api, place: &Place) -> Result<Reading> {
    let mut reading = Reading { place: place.clone(), high_watermark: 0, polls: Vec::new() };
    let mut offset = 0;
    loop {
        let partition = FetchPartition {
            topic: place.topic.clone(),
            partition: place.partition,
            offset,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            partitions: vec![partition],
            wait_ms: Some(0),
            format: RecordFormat::Batches.into(),
            ..FetchRequest::default()
        };
        let response = api.consumer().fetch(request).await?.into_inner();
        let fetched = response.partitions.into_iter().next().context("one partition was asked for")?;
        ensure!(fetched.failure.is_none(), "{place}: {:?}", fetched.failure);
        let progress = fetched.progress.context("progress")?;
        reading.high_watermark = reading.high_watermark.max(progress.high_watermark);
        let poll = fetched.batches.iter().map(open).collect::<Result<Vec<_>>>()?.concat();
        reading.polls.push(poll.into_iter().filter(|(at, _)| *at >= offset).collect());
        if progress.high_watermark < 0 {
            // Its leader has just begun.
            offset = progress.next_offset;
            continue;
        }
        if progress.next_offset >= progress.high_watermark {
            return Ok(reading);
        }
        ensure!(progress.next_offset > offset, "{place}: no progress at {offset}");
        offset = progress.next_offset;
    }
}

/// Reads with FetchStream, giving credit for one batch after the other.
///
/// # Errors
/// It cannot be read to its end.
pub async fn stream(api: &Api, place: &Place) -> Result<Reading> {
    let (requests, queue) = tokio::sync::mpsc::channel(8);
    let credit = Some(FetchCredit { bytes: 1, records: 0 });
    let hello = FetchHello { client: "reader".into(), credit, ..FetchHello::default() };
    requests.try_send(request(Request::Hello(hello)))?;
    let assign = FetchAssign {
        subscription_id: 7,
        generation: 1,
        topic: place.topic.clone(),
        partition: place.partition,
        ..FetchAssign::default()
    };
    requests.try_send(request(Request::Assign(assign)))?;
    let mut answers = api.consumer().fetch_stream(ReceiverStream::new(queue)).await?.into_inner();
    let mut reading = Reading { place: place.clone(), high_watermark: 0, polls: Vec::new() };
    let mut next = 0;
    while let Some(answer) = answers.message().await? {
        match answer.frame {
            Some(Response::Delivery(delivery)) => {
                reading.high_watermark = delivery.high_watermark;
                next = delivery.next_offset;
                let batch = delivery.batch.context("a batch")?;
                // As much as it took: there is one byte left then, and one byte is enough for the next batch.
                let bytes = i64::try_from(batch.records.len())?;
                reading.polls.push(open(&batch)?);
                if next >= reading.high_watermark {
                    return Ok(reading);
                }
                requests.send(request(Request::Credit(FetchCredit { bytes, records: 0 }))).await?;
            }
            Some(Response::Heartbeat(heartbeat)) => {
                for progress in heartbeat.progress.into_iter().filter_map(|said| said.progress) {
                    reading.high_watermark = progress.high_watermark;
                    next = next.max(progress.next_offset);
                }
                // Of a partition without records.
                if next >= reading.high_watermark {
                    return Ok(reading);
                }
            }
            Some(Response::Welcome(_)) => {}
            other => anyhow::bail!("{place}: did not expect {other:?}"),
        }
    }
    anyhow::bail!("{place}: the stream ended")
}

fn request(frame: Request) -> FetchStreamRequest {
    FetchStreamRequest { frame: Some(frame) }
}
