//! A node of the cluster that says what cannot be: rows 46 to 48 of the list of hostile inputs. Its certificate is good; nothing
//! that it says may end another node, cost what was acknowledged, or raise the term beyond all bounds.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use callboard_broker::controller::raft_wire::{Quorum, RaftEntry, RaftMessage, RaftSnapshot};
use callboard_broker::controller::{Endpoint, Member, raft_id};
use callboard_broker::peer::protocol::{
    self, ASK, PartitionPosition, PeerRequest, PeerResponse, Positions, REPLICATE,
};
use callboard_client::protocol::cluster::DescribedQuorum;
use callboard_client::{BrokerId, Client, Offset};
use callboard_cluster_tests::cluster::Cluster;
use callboard_cluster_tests::load::block_on;
use callboard_common::transport::network::Network;
use callboard_common::transport::peer::PeerIdentity;
use callboard_common::transport::stream::FrameReader;
use callboard_common::transport::tls::Identity;
use callboard_common::{FeatureLevel, LeaderEpoch, Uuid};

use crate::{PATIENCE, check, create, scene, turn};

const LEVEL: FeatureLevel = FeatureLevel::NEWEST;
const FRAME_MAX_BYTES: u32 = 1 << 20;
/// An answer takes no longer; what is not answered is only waited for so long.
const ANSWER: Duration = Duration::from_millis(500);
/// Kinds of raft-rs' messages.
const APPEND: u8 = 3;
const VOTE: u8 = 5;
const SNAPSHOT: u8 = 7;
const HEARTBEAT: u8 = 8;
const TIMEOUT_NOW: u8 = 14;
const PRE_VOTE: u8 = 17;

/// Node 2, as others see it.
struct Mad {
    endpoint: quinn::Endpoint,
    identity: PeerIdentity,
    directory: Uuid,
}

fn frame(value: &impl bincode::Encode) -> Bytes {
    let frame = protocol::frame(LEVEL, 1, ASK, value).expect("it is small");
    frame.into_chunks().concat().into()
}

fn raft(from: BrokerId, directory: Uuid, messages: Vec<RaftMessage>) -> Bytes {
    let peer = Endpoint {
        host: "127.0.0.1".into(),
        port: 9,
    };
    let from = Member {
        broker: from,
        directory,
        peer,
    };
    frame(&PeerRequest::Raft { from, messages })
}

impl Mad {
    fn with_key_of(cluster: &Cluster) -> Self {
        let dir = cluster.authority();
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("there");
        let identity = PeerIdentity::new(Identity {
            ca_pem: read("ca.pem"),
            certificate_pem: read("node-2/node.pem"),
            key_pem: read("node-2/node-key.pem"),
            clients_pem: None,
        });
        let identity = identity.expect("a node's");
        let socket = Network::default().bind(cluster.address(9, 0), false);
        let socket = socket.expect("an address");
        Self {
            endpoint: identity.open(socket).expect("opened"),
            identity,
            directory: Uuid([9; 16]),
        }
    }

    /// Says bytes on a lane of a new connection; the answer, if there is one.
    async fn say(&self, cluster: &Cluster, to: u8, bytes: Bytes) -> Option<PeerResponse> {
        let name = self.identity.name_of(BrokerId(to.into()));
        let connecting = self.endpoint.connect(cluster.address(to, 9392), &name);
        let connection = connecting.expect("a name").await.expect("let in");
        let saying = async {
            let (mut send, receive) = connection.open_bi().await.ok()?;
            send.write_all(&bytes).await.ok()?;
            let mut reader = FrameReader::new(receive);
            let frame = reader.frame(FRAME_MAX_BYTES, FRAME_MAX_BYTES as usize);
            let (_, body, _) = frame.await.ok()?;
            protocol::decode(&body).ok()
        };
        tokio::time::timeout(ANSWER, saying).await.ok().flatten()
    }

    /// The number in Raft of another node.
    async fn raft_id_of(&self, cluster: &Cluster, node: u8) -> u64 {
        match self.say(cluster, node, frame(&PeerRequest::Probe)).await {
            Some(PeerResponse::Probed { directory, .. }) => raft_id(&directory),
            other => panic!("node {node} does not say who it is: {other:?}"),
        }
    }

    fn message(&self, to: u64, kind: u8, change: impl FnOnce(&mut RaftMessage)) -> RaftMessage {
        let mut message = RaftMessage {
            kind,
            to,
            from: raft_id(&self.directory),
            term: 1,
            log_term: 1,
            index: 1,
            ..RaftMessage::default()
        };
        change(&mut message);
        message
    }

    /// Row 47.
    fn messages(&self, to: u64, term: u64) -> Vec<(&'static str, Vec<RaftMessage>)> {
        let entry = |index, term| RaftEntry {
            term,
            index,
            kind: 0,
            data: vec![7; 10],
            context: Vec::new(),
        };
        let quorum = |voters: Vec<u64>| Quorum {
            voters,
            ..Quorum::default()
        };
        let image = |quorum| {
            Some(RaftSnapshot {
                index: u64::MAX - 1,
                term,
                quorum,
                image: b"no image".to_vec(),
            })
        };
        // In the term that the others are in, or it would be old.
        let now = |kind, change: &dyn Fn(&mut RaftMessage)| {
            vec![self.message(to, kind, |m| {
                m.term = term;
                change(m);
            })]
        };
        let one = |kind, change: fn(&mut RaftMessage)| now(kind, &change);
        vec![
            ("the last term", one(HEARTBEAT, |m| m.term = u64::MAX)),
            ("a vote of the last term", one(VOTE, |m| m.term = u64::MAX)),
            ("the last index", one(APPEND, |m| m.index = u64::MAX)),
            (
                "a gap",
                now(APPEND, &|m| m.entries = vec![entry(2, 1), entry(9, 1)]),
            ),
            (
                "entries of the future",
                now(APPEND, &|m| m.entries = vec![entry(2, 1 << 50)]),
            ),
            ("all is committed", one(HEARTBEAT, |m| m.commit = u64::MAX)),
            (
                "an image for a quorum without anybody",
                now(SNAPSHOT, &|m| m.snapshot = image(quorum(vec![]))),
            ),
            (
                "an image for a quorum of others",
                now(SNAPSHOT, &|m| m.snapshot = image(quorum(vec![5, 5]))),
            ),
            ("no image at all", one(SNAPSHOT, |_| ())),
            ("lead now", one(TIMEOUT_NOW, |_| ())),
            ("what no member sends", one(0, |_| ())),
            ("for somebody else", one(HEARTBEAT, |m| m.to ^= 1)),
            (
                "a storm of elections",
                (0..2_000)
                    .map(|n| self.message(to, PRE_VOTE, |m| m.term = 2 + n))
                    .collect(),
            ),
        ]
    }
}

/// Rows 46 and 48, and what is no frame at all.
fn frames(topic_id: Uuid) -> Vec<(&'static str, Bytes)> {
    let position = |change: fn(&mut PartitionPosition)| {
        let mut position = PartitionPosition {
            topic_id,
            partition: 0,
            broker_epoch: i64::MAX,
            epoch: LeaderEpoch(i32::MAX),
            end: Offset::new(i64::MAX),
            synced: Offset::ZERO,
            last_epoch: Some(LeaderEpoch(-7)),
        };
        change(&mut position);
        let positions = Positions {
            positions: vec![position; 1_000],
            forgotten: vec![(Uuid([4; 16]), -1); 1_000],
        };
        let frame = protocol::frame(LEVEL, 1, REPLICATE, &positions).expect("it is small");
        Bytes::from(frame.into_chunks().concat())
    };
    let mut unknown = protocol::frame(LEVEL, 1, 999, &PeerRequest::Probe).expect("it is small");
    let mut version = unknown.clone();
    unknown.header.id = u64::MAX;
    (version.header.api, version.header.version) = (ASK, 77);
    let chunks =
        |frame: callboard_common::wire::frame::Frame| Bytes::from(frame.into_chunks().concat());
    // The sizes of so many logs, in bincode's largest number.
    let mut announced = frame(&PeerRequest::Probe).to_vec();
    announced.truncate(20);
    announced.extend([4, 253, 0, 0, 0, 0, 25, 0, 0, 0]);
    let body = (announced.len() - 20) as u32;
    announced[..4].copy_from_slice(&(16 + body).to_be_bytes());
    announced[16..20].copy_from_slice(&body.to_be_bytes());
    vec![
        (
            "a topic that nobody knows",
            position(|p| p.topic_id = Uuid([3; 16])),
        ),
        ("further than the log, in a reign to come", position(|_| ())),
        (
            "further than the log",
            position(|p| (p.epoch, p.broker_epoch) = (LeaderEpoch(0), 1)),
        ),
        ("a partition below 0", position(|p| p.partition = -1)),
        ("no incarnation", position(|p| p.broker_epoch = -1)),
        ("a reign below 0", position(|p| p.epoch = LeaderEpoch(-1))),
        ("an unknown request", chunks(unknown)),
        ("a version that was not agreed on", chunks(version)),
        ("100 GiB are announced", announced.into()),
        ("a frame of 4 GiB", Bytes::from_static(&[0xff; 64])),
        ("zeros", Bytes::from_static(&[0; 64])),
    ]
}

async fn quorum(cluster: &Cluster) -> DescribedQuorum {
    let client = Client::connect(cluster.client()).await.expect("connects");
    client.admin().describe_quorum().await.expect("described")
}

/// The identifier of the topic that is written to.
async fn topic(cluster: &Cluster) -> Uuid {
    let client = Client::connect(cluster.client()).await.expect("connects");
    let described = client.admin().describe_topics(&["t"]).await;
    described.expect("described")[0].id
}

#[test]
fn rows_46_to_48_a_node_that_has_gone_mad_ends_no_other() {
    let _turn = turn();
    let (cluster, load) = scene();
    let topic = block_on(topic(&cluster));
    block_on(async {
        let mad = Mad::with_key_of(&cluster);
        for node in [1, 3] {
            let id = mad.raft_id_of(&cluster, node).await;
            for (what, messages) in mad.messages(id, quorum(&cluster).await.term) {
                let said = raft(BrokerId(2), mad.directory, messages);
                let answer = mad.say(&cluster, node, said).await;
                assert_eq!(answer, Some(PeerResponse::Taken), "{what}");
            }
            for (what, bytes) in frames(topic) {
                let answer = mad.say(&cluster, node, bytes).await;
                assert_eq!(answer, None, "{what}");
            }
            let for_another = raft(BrokerId(3), mad.directory, Vec::new());
            assert_eq!(mad.say(&cluster, node, for_another).await, None);
            assert_eq!(mad.raft_id_of(&cluster, node).await, id, "it still answers");
        }
    });
    // The metadata still change, and everybody is where it was.
    create(&cluster, 0, "afterwards");
    cluster.wait_in_sync(2, "afterwards", 3, PATIENCE);
    let quorum = block_on(quorum(&cluster));
    assert!(quorum.term < 1_000, "{quorum:?}");
    check(load);
}
