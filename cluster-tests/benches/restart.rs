//! How soon a panicking leader of a cleanly closed 1 GiB partition is back from its log, while a neighbour serves on.
//!
//! `cargo bench -p callboard-cluster-tests --bench restart`; the table goes to docs/BENCHMARKS.md by hand.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures and prints"
)]

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

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut times = Vec::new();
    let dir = tempfile::tempdir().expect("a directory");
    let start = async || {
        Node::builder()
            .directory(dir.path())
            .ephemeral_ports()
            .start()
            .await
            .expect("starts")
    };
    let node = start().await;
    let client = connect(&node).await;
    for topic in ["large", "neighbour"] {
        client
            .admin()
            .create_topic(topic, 1)
            .await
            .expect("created");
    }
    let filling = Producer::new(
        &client,
        ProducerConfig {
            batch_size_bytes: 512 << 10,
            ..ProducerConfig::default()
        },
    );
    // One gibibyte, a little less, so that it stays one segment.
    for i in 0..16_200u32 {
        let value: Vec<u8> = (0..VALUE_BYTES as u32)
            .map(|j| (i.wrapping_mul(j) >> 7) as u8)
            .collect();
        drop(
            filling
                .enqueue(Record::to("large").value(value))
                .await
                .expect("queued"),
        );
    }
    filling.close().await.expect("delivered");
    client.close().await;
    let partition = TopicPartition::new(TopicName::new("large").expect("valid"), 0);
    assert!(node.stop().await.is_empty(), "closed in order");
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let node = start().await;
        let client = connect(&node).await;
        let (large, neighbour) = (producer(&client), producer(&client));
        let _warm = large
            .send(Record::to("large").value("warm"))
            .await
            .expect("delivered");
        let _warm = neighbour
            .send(Record::to("neighbour").value("warm"))
            .await
            .expect("delivered");
        let began = Instant::now();
        assert!(node.crash_leader(&partition));
        let serving = async {
            let mut slowest = Duration::ZERO;
            while began.elapsed() < Duration::from_millis(200) {
                let asked = Instant::now();
                let _delivery = neighbour
                    .send(Record::to("neighbour").value("as ever"))
                    .await
                    .expect("delivered");
                slowest = slowest.max(asked.elapsed());
            }
            slowest
        };
        let back = async {
            let _delivery = large
                .send(Record::to("large").value("back"))
                .await
                .expect("delivered");
            began.elapsed()
        };
        let (back, slow) = tokio::join!(back, serving);
        times.push(back);
        slowest = slowest.max(slow);
        client.close().await;
        assert!(node.stop().await.is_empty(), "closed in order");
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
