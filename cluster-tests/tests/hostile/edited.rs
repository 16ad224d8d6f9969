//! Row 54: somebody edits the data directory of a node that is stopped. The node starts, serves what was not touched, and of
//! the rest what is sound; nothing panics, nothing hangs, nothing outside of the directory is followed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use callboard_client::protocol::list_offsets::OffsetTarget;
use callboard_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Error, StartAt, TopicName, TopicPartition,
    Trust,
};
use callboard_cluster_tests::load::block_on;
use callboard_cluster_tests::process::NodeProcess;

const FIRST: &str = "00000000000000000000";
/// Lines of each topic, in two requests.
const LINES: usize = 20;
/// What one read may take at most: whoever waits longer hangs.
const PATIENCE: Duration = Duration::from_secs(6);
const HUGE_BYTES: u64 = 1 << 40;

/// What is to become of a topic whose log was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// All of it is served: what was edited is made anew, or is nothing of ours.
    Whole,
    /// What is sound is served from the beginning, or it is refused.
    SoundOrRefused,
}

type Edit = fn(&Path, &Path);

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("there is such a program").success());
}

fn replace(dir: &Path, name: &str, by: impl FnOnce(&Path)) {
    let path = dir.join(format!("{FIRST}{name}"));
    drop(fs::remove_file(&path));
    by(&path);
}

fn huge(path: &Path) {
    let file = fs::File::create(path).expect("made");
    file.set_len(HUGE_BYTES).expect("it is sparse");
}

fn garbage(path: &Path) {
    fs::write(path, [0xA5; 3000]).expect("written");
}

/// A file goes elsewhere, and a link to it takes its place.
fn moved_out(path: &Path, outside: &Path) {
    let name = path.file_name().expect("it has one");
    let to = outside.join(name);
    let _bytes = fs::copy(path, &to).expect("copied");
    fs::remove_file(path).expect("removed");
    symlink(&to, path).expect("linked");
}

/// By topic: what is done to its log's directory, with a directory outside of the data.
const EDITS: &[(&str, Edit, Then)] = &[
    ("untouched", |_, _| {}, Then::Whole),
    (
        "largest-name",
        |dir, _| fs::write(dir.join("09223372036854775807.log"), b"").expect("written"),
        Then::SoundOrRefused,
    ),
    (
        "overlap",
        |dir, _| {
            let log = dir.join(format!("{FIRST}.log"));
            let _bytes = fs::copy(log, dir.join("00000000000000000003.log")).expect("copied");
        },
        Then::SoundOrRefused,
    ),
    (
        "huge-indexes",
        |dir, _| {
            replace(dir, ".index", huge);
            replace(dir, ".timeindex", huge);
        },
        Then::Whole,
    ),
    (
        "garbage-beside",
        |dir, _| {
            for name in [".index", ".timeindex", ".snapshot"] {
                replace(dir, name, garbage);
            }
            garbage(&dir.join("leader-epoch-checkpoint"));
        },
        Then::Whole,
    ),
    (
        "huge-beside",
        |dir, _| {
            replace(dir, ".snapshot", huge);
            huge(&dir.join("leader-epoch-checkpoint"));
        },
        Then::Whole,
    ),
    (
        "empty",
        |dir, _| replace(dir, ".log", |p| fs::write(p, b"").expect("written")),
        Then::SoundOrRefused,
    ),
    (
        "linked-log",
        |dir, outside| moved_out(&dir.join(format!("{FIRST}.log")), outside),
        Then::SoundOrRefused,
    ),
    (
        "linked-index",
        |dir, outside| {
            garbage(&outside.join("index"));
            replace(dir, ".index", |p| {
                symlink(outside.join("index"), p).expect("linked")
            });
        },
        Then::Whole,
    ),
    (
        "fifo-log",
        |dir, _| replace(dir, ".log", fifo),
        Then::SoundOrRefused,
    ),
    (
        "fifos-beside",
        |dir, _| {
            replace(dir, ".index", fifo);
            replace(dir, ".timeindex", fifo);
            replace(dir, ".snapshot", fifo);
        },
        Then::Whole,
    ),
    (
        "directory-as-segment",
        |dir, _| fs::create_dir(dir.join("00000000000000000099.log")).expect("made"),
        Then::SoundOrRefused,
    ),
    (
        "foreign-names",
        |dir, _| {
            for name in [
                "x.log",
                "-1.log",
                "99999999999999999999.log",
                "7.log",
                " .index",
            ] {
                garbage(&dir.join(name));
            }
        },
        Then::Whole,
    ),
];

/// Whether the node has said that something is wrong with a topic's log.
fn is_told(said: &str, topic: &str) -> bool {
    let log = format!("/{topic}-0");
    let mut lines = said.lines();
    lines.any(|line| line.contains("ERRO") && line.contains(&log))
}

/// What is read of a topic until its end, or the error.
async fn read(client: &Client, topic: &str) -> Result<usize, Error> {
    let at = TopicPartition::new(TopicName::new(topic).expect("valid"), 0);
    let end = client.admin().offset(&at, OffsetTarget::Latest).await?;
    let end = end.map_or(0, |offset| offset.get());
    let start = [(at, StartAt::Beginning)];
    let mut consumer = Consumer::assign(client, ConsumerConfig::default(), start);
    let mut records = 0;
    while records < end as usize {
        let record = consumer.recv().await?;
        let line = record.value.unwrap_or_default();
        assert_eq!(record.offset.get() as usize, records, "{topic}");
        assert_eq!(line, format!("line {records}").as_bytes(), "{topic}");
        records += 1;
    }
    Ok(records)
}

#[test]
fn row_54_an_edited_data_directory_neither_stops_the_node_nor_leads_out_of_it() {
    let (dir, outside) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let mut node = NodeProcess::start(dir.path());
    for (topic, ..) in EDITS {
        drop(node.expect(&["topic", "create", topic, "--partitions", "1"], b""));
        for half in [0..LINES / 2, LINES / 2..LINES] {
            let lines: Vec<String> = half.map(|n| format!("line {n}\n")).collect();
            drop(node.expect(&["produce", topic], lines.concat().as_bytes()));
        }
    }
    assert_eq!(node.terminate(), Some(0));
    for (topic, edit, _) in EDITS {
        edit(&dir.path().join(format!("{topic}-0")), outside.path());
    }
    let before = snapshot(outside.path());
    node.restart();
    block_on(async {
        let ca = fs::read_to_string(dir.path().join("development-ca.pem")).expect("it is there");
        let config = ClientConfig {
            api_timeout: PATIENCE / 2,
            ..ClientConfig::new(node.quic, Trust::Ca(ca))
        };
        let client = Client::connect(config).await.expect("connects");
        let mut wrong = Vec::new();
        for (topic, _, then) in EDITS {
            let reading = tokio::time::timeout(PATIENCE, read(&client, topic)).await;
            let is_right = match (then, &reading) {
                (Then::Whole, Ok(Ok(read))) => *read == LINES,
                (Then::SoundOrRefused, Ok(Ok(LINES))) => true,
                // A consumer asks again and again; what is wrong stands in the node's log.
                (Then::SoundOrRefused, _) => is_told(&node.said(), topic),
                (Then::Whole, Ok(Err(_)) | Err(_)) => false,
            };
            if !is_right {
                wrong.push((*topic, reading));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", node.said());
    });
    assert!(!node.has_ended(), "{}", node.said());
    let said = node.said();
    assert!(!said.contains("panic"), "{said}");
    assert_eq!(
        snapshot(outside.path()),
        before,
        "what lies outside was changed"
    );
}

/// All files of a directory with what is in them.
fn snapshot(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(dir).expect("it is there");
    let mut files: Vec<_> = entries
        .map(|e| {
            let e = e.expect("an entry");
            (e.file_name(), fs::read(e.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}
