//! A load generator's view of a Kafka door: whole batches out and in, one connection, many requests in flight.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use callboard_common::ErrorCode;
use callboard_common::kafka::header::RequestHeader;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use callboard_common::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use callboard_common::kafka::{ApiKey, Decoder, Encoder, Message, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::output::Failure;

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 256 << 20;

/// One connection to a Kafka door.
pub(super) struct Door {
    stream: TcpStream,
    buffer: BytesMut,
    next: i32,
    /// Requests that are not answered.
    asked: VecDeque<(i16, i16)>,
}

fn failed(code: i16) -> Result<(), Failure> {
    let error = ErrorCode::from_number(code);
    if error == ErrorCode::None {
        return Ok(());
    }
    Err(Failure::new(error))
}

impl Door {
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|e| Failure::new(format!("{address}: {e}")))?;
        let _best_effort = stream.set_nodelay(true);
        let (buffer, next, asked) = (BytesMut::new(), 0, VecDeque::new());
        Ok(Self {
            stream,
            buffer,
            next,
            asked,
        })
    }

    /// How many requests wait for their answers.
    pub(super) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    async fn send<Q: Message>(&mut self, request: &Q, version: i16) -> Result<(), Failure> {
        self.next += 1;
        let header = RequestHeader {
            api_key: Q::KEY,
            api_version: version,
            correlation_id: self.next,
            client_id: Some(Text::from_static("callboard-bench")),
        };
        let mut encoder = Encoder::new();
        header.encode(&mut encoder).map_err(Failure::new)?;
        request
            .encode(&mut encoder, version)
            .map_err(Failure::new)?;
        let length = i32::try_from(encoder.length()).map_err(Failure::new)?;
        self.stream.write_all(&length.to_be_bytes()).await?;
        for chunk in encoder.into_chunks() {
            self.stream.write_all(&chunk).await?;
        }
        self.asked.push_back((Q::KEY, version));
        Ok(())
    }

    async fn receive<A: Message>(&mut self) -> Result<A, Failure> {
        while self.buffer.len() < 4 {
            self.read().await?;
        }
        let length = u32::from_be_bytes([
            self.buffer[0],
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
        ]) as usize;
        if length > ANSWER_MAX_BYTES {
            return Err(Failure::new(format!("an answer of {length} bytes")));
        }
        while self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            self.read().await?;
        }
        let mut decoder = Decoder::new(self.buffer.split_to(4 + length).freeze().slice(4..));
        let _correlation_id = decoder.i32().map_err(Failure::new)?;
        let (key, version) = self.asked.pop_front().unwrap_or_default();
        if ApiKey::from_number(key).is_some_and(|key| version >= key.flexible_from()) {
            decoder
                .tagged_fields(|_, _| Ok(false))
                .map_err(Failure::new)?;
        }
        A::from_bytes(decoder.into_rest(), version).map_err(Failure::new)
    }

    async fn read(&mut self) -> Result<(), Failure> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(Failure::new("the node closed the connection")),
            _ => Ok(()),
        }
    }

    /// How many partitions a topic has; it is created if the node does that.
    pub(super) async fn partitions(&mut self, topic: &str) -> Result<i32, Failure> {
        let topic = m::metadata_request::MetadataRequestTopic {
            name: Some(topic.into()),
            ..Default::default()
        };
        let request = m::MetadataRequest {
            topics: Some(vec![topic]),
            ..Default::default()
        };
        for _ in 0..50 {
            self.send(&request, 9).await?;
            let answer: m::MetadataResponse = self.receive().await?;
            let found = answer
                .topics
                .first()
                .map(|t| (t.error_code, t.partitions.len()));
            if let Some((0, count @ 1..)) = found {
                return Ok(i32::try_from(count).unwrap_or(i32::MAX));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Err(Failure::new("the topic is not there and is not created"))
    }

    /// Sends a batch with acks=all.
    pub(super) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> Result<(), Failure> {
        let data = PartitionProduceData {
            index: partition,
            records: Some(batch),
        };
        let request = m::ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: topic.into(),
                partition_data: vec![data],
                ..Default::default()
            }],
            ..Default::default()
        };
        self.send(&request, 9).await
    }

    /// Waits for the next acknowledgement.
    pub(super) async fn acknowledged(&mut self) -> Result<(), Failure> {
        let answer: m::ProduceResponse = self.receive().await?;
        let mut partitions = answer.responses.iter().flat_map(|t| &t.partition_responses);
        partitions.try_for_each(|p| failed(p.error_code))
    }

    /// Asks for what stands at these offsets, by partition.
    pub(super) async fn fetch(&mut self, topic: &str, offsets: &[i64]) -> Result<(), Failure> {
        let partition = |(partition, offset): (i32, &i64)| FetchPartition {
            partition,
            fetch_offset: *offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let request = m::FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 50 << 20,
            topics: vec![FetchTopic {
                topic: topic.into(),
                partitions: (0..).zip(offsets).map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.send(&request, 11).await
    }

    /// Waits for what was asked for: records of each partition.
    pub(super) async fn fetched(&mut self) -> Result<Vec<(usize, Bytes)>, Failure> {
        let answer: m::FetchResponse = self.receive().await?;
        failed(answer.error_code)?;
        let mut out = Vec::new();
        for partition in answer.responses.into_iter().flat_map(|t| t.partitions) {
            failed(partition.error_code)?;
            let number = usize::try_from(partition.partition_index).unwrap_or(0);
            out.push((number, partition.records.unwrap_or_default()));
        }
        Ok(out)
    }
}
