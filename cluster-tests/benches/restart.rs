//! How soon a panicking leader of a cleanly closed 1 GiB partition is back from its log, while a neighbour serves on.
//!
//! `cargo bench -p callboard-cluster-tests --bench restart`; the table goes to docs/BENCHMARKS.md by hand.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures and prints"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use callboard_broker::Node;
use callboard_client::{
    Client, ClientConfig, Producer, ProducerConfig, Record, TopicName, TopicPartition, Trust,
};

const VALUE_BYTES: usize = 64 << 10;
const ROUNDS: usize = 9;

async fn connect(node: &Node) -> Client {
    let mut config = ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().to_owned()));
    config.retry_backoff = Duration::from_millis(1);
    Client::connect(config).await.expect("connects")
}

fn producer(client: &Client) -> Producer {
    Producer::new(
        client,
        ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        },
    )
}

async fn start(dir: &Path) -> Node {
    let node = Node::builder().directory(dir).ephemeral_ports();
    node.start().await.expect("starts")
}

/// Makes both topics, fills one partition and closes the node in order.
async fn fill(dir: &Path) {
    let node = start(dir).await;
    let client = connect(&node).await;
    for topic in ["large", "neighbour"] {
        client
            .admin()
            .create_topic(topic, 1)
            .await
            .expect("created");
    }
    let config = ProducerConfig {
        batch_size_bytes: 512 << 10,
        ..ProducerConfig::default()
    };
    let filling = Producer::new(&client, config);
    // One gibibyte, a little less, so that it stays one segment.
    for i in 0..16_200u32 {
        let value: Vec<u8> = (0..VALUE_BYTES as u32)
            .map(|j| (i.wrapping_mul(j) >> 7) as u8)
            .collect();
        let record = Record::to("large").value(value);
        drop(filling.enqueue(record).await.expect("queued"));
    }
    filling.close().await.expect("delivered");
    client.close().await;
    assert!(node.stop().await.is_empty(), "closed in order");
}

async fn send(producer: &Producer, topic: &str) {
    let record = Record::to(topic).value("now");
    let _delivery = producer.send(record).await.expect("delivered");
}

/// From the panic to the next acknowledgement, and the neighbour's slowest meanwhile.
async fn round(dir: &Path, partition: &TopicPartition) -> (Duration, Duration) {
    let node = start(dir).await;
    let client = connect(&node).await;
    let (large, neighbour) = (producer(&client), producer(&client));
    send(&large, "large").await;
    send(&neighbour, "neighbour").await;
    let began = Instant::now();
    assert!(node.crash_leader(partition));
    let serving = async {
        let mut slowest = Duration::ZERO;
        while began.elapsed() < Duration::from_millis(200) {
            let asked = Instant::now();
            send(&neighbour, "neighbour").await;
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let back = async {
        send(&large, "large").await;
        began.elapsed()
    };
    let measured = tokio::join!(back, serving);
    client.close().await;
    assert!(node.stop().await.is_empty(), "closed in order");
    measured
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path()).await;
    let partition = TopicPartition::new(TopicName::new("large").expect("valid"), 0);
    let (mut times, mut slowest) = (Vec::new(), Duration::ZERO);
    for _ in 0..ROUNDS {
        let (back, slow) = round(dir.path(), &partition).await;
        times.push(back);
        slowest = slowest.max(slow);
    }
    times.sort();
    println!("panic to first acknowledged record of a 1 GiB partition, {ROUNDS} rounds:");
    println!(
        "  best {:?}, median {:?}, worst {:?}",
        times[0],
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    println!("slowest acknowledgement of the neighbour meanwhile: {slowest:?}");
}
