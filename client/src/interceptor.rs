//! Hooks around records: to add a header, to trace, to count (KIP-42).

use std::collections::BTreeMap;

use callboard_common::{Offset, TopicPartition};

use crate::consumer::ConsumedRecord;
use crate::error::Error;
use crate::producer::{Delivery, Record};

/// Sees what a producer sends. Called where records are queued and where answers come in: return soon.
///
/// ```
/// # use callboard_broker::Node;
/// # use callboard_client::{Client, ClientConfig, Consumer, ConsumerConfig, ConsumedRecord, ConsumerInterceptor, Producer, ProducerConfig, ProducerInterceptor, Record, StartAt, TopicPartition, Trust};
/// struct Stamp;
///
/// impl ProducerInterceptor for Stamp {
///     fn on_send(&self, record: Record) -> Record {
///         record.header("sent-by", "till 3")
///     }
/// }
///
/// struct Upper;
///
/// impl ConsumerInterceptor for Upper {
///     fn on_receive(&self, mut record: ConsumedRecord) -> ConsumedRecord {
///         record.value = record.value.map(|v| v.to_ascii_uppercase().into());
///         record
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = Node::builder().in_memory().start().await?;
/// # let client = Client::connect(ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().into()))).await?;
/// client.admin().create_topic("sales", 1).await?;
/// let producer = Producer::new(&client, ProducerConfig::default()).intercepted_by(Stamp);
/// producer.send(Record::to("sales").value("tea")).await?;
///
/// let sales = TopicPartition::parse("sales-0").expect("valid");
/// let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), [(sales, StartAt::Beginning)]);
/// consumer.intercept(Upper);
/// let record = consumer.recv().await?;
/// assert_eq!((&*record.headers[0].key, record.value.as_deref()), ("sent-by", Some(&b"TEA"[..])));
///
/// let metrics = client.metrics();
/// assert_eq!((metrics.records_delivered, metrics.records_failed, metrics.records_received), (1, 0, 1));
/// # Ok(()) }
/// ```
pub trait ProducerInterceptor: Send + Sync + 'static {
    /// A record before it is queued: what is returned is sent. The partition is chosen afterwards.
    fn on_send(&self, record: Record) -> Record {
        record
    }

    /// What came of a record.
    fn on_delivery(&self, _delivered: &Result<Delivery, Error>) {}
}

/// Sees what a consumer receives. Called in [`Consumer::recv`](crate::Consumer::recv): return soon.
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// A record before it is handed out. Offsets and partitions are not to be changed.
    fn on_receive(&self, record: ConsumedRecord) -> ConsumedRecord {
        record
    }

    /// Offsets that were committed.
    fn on_commit(&self, _offsets: &BTreeMap<TopicPartition, Offset>) {}
}
