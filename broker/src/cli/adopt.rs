//! `callboard adopt`: takes over a copy of a data directory that Apache Kafka wrote.
//!
//! Kafka's log files, indexes, checkpoints and committed offsets are what this node reads and writes itself; they are
//! copied as they are. What is new is the metadata: topics with their identifiers and settings. A node is started on
//! the copy without being announced, so that every log is recovered and every topic led before this says that all is
//! well. The source is only read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use callboard_broker::controller::kafka_metadata::{KafkaMetadata, KafkaTopic};
use callboard_broker::storage::checkpoint;
use callboard_broker::storage::disk::RealDisk;
use callboard_broker::storage::leader_epochs::LeaderEpochs;
use callboard_broker::storage::meta_properties::{MetaProperties, read_topic_id, write_topic_id};
use callboard_broker::topic_config::TopicConfig;
use callboard_broker::{BrokerConfig, Node};
use callboard_common::config::Span;
use callboard_common::record::{BatchHeader, HEADER_BYTES};
use callboard_common::{LeaderEpoch, TopicName, TopicPartition, Uuid};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::output::{Failure, for_a_person, line, note, table};

const METADATA: &str = "__cluster_metadata-0";
/// Topics that Kafka keeps for itself and that mean nothing here.
const NOT_OURS: [&str; 3] = [
    "__cluster_metadata",
    "__transaction_state",
    "__share_group_state",
];
/// Files of Kafka's that hold offsets by partition; this node reads and writes the same.
const CHECKPOINTS: [&str; 3] = [
    "recovery-point-offset-checkpoint",
    "replication-offset-checkpoint",
    "log-start-offset-checkpoint",
];

/// Take over a copy of a data directory that Apache Kafka wrote (after Kafka was stopped).
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// Kafka's data directory (one of its `log.dirs`); it is only read.
    kafka: PathBuf,
    /// Where the node's data will be; it must not be there yet, or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Producer ids that Kafka may have given out, if its metadata do not say.
const UNKNOWN_PRODUCER_IDS: i64 = 1 << 40;

/// Kafka's topics by name.
type Topics = BTreeMap<TopicName, (Uuid, KafkaTopic)>;

/// A topic that is taken over.
#[derive(Debug)]
struct Adopted {
    id: Uuid,
    /// The reign after Kafka's last one, by partition.
    epochs: Vec<LeaderEpoch>,
    configs: BTreeMap<String, String>,
    /// Partitions whose directory is there.
    there: BTreeSet<i32>,
}

pub(crate) async fn run(adopt: Adopt) -> Result<(), Failure> {
    let disk = RealDisk;
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", adopt.kafka.display()));
    let meta = MetaProperties::read(&disk, &adopt.kafka).map_err(|e| failed(&e))?;
    let meta = meta.ok_or_else(|| {
        failed(&"there is no meta.properties: this is no data directory of Kafka 3 or 4")
    })?;
    if adopt.data.exists() && fs::read_dir(&adopt.data)?.next().is_some() {
        return Err(Failure::new(format!(
            "{} is not empty",
            adopt.data.display()
        )));
    }
    let mut notes = Vec::new();
    let directories = directories(&adopt.kafka, &mut notes)?;
    let (metadata, next_producer_id) = metadata(&adopt.kafka, &mut notes)?;
    let directories = readable(directories, &mut notes)?;
    let topics = topics(&adopt.kafka, &directories, metadata, &mut notes)?;
    copy(&adopt, &directories, &topics)?;
    let own = MetaProperties {
        directory_id: Uuid::random(),
        ..meta.clone()
    };
    own.write(&disk, &adopt.data).map_err(|e| failed(&e))?;
    let ends = lead(&adopt.data, &meta, &topics, next_producer_id).await?;
    report(&topics, &ends, &notes, adopt.json)
}

/// Directories of partitions that are taken over.
fn directories(
    kafka: &Path,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<TopicPartition, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(kafka)? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .and_then(|n| n.to_str())
            .filter(|_| path.is_dir())
        else {
            continue;
        };
        match TopicPartition::parse(name) {
            Some(partition) if !NOT_OURS.contains(&partition.topic.as_str()) => {
                drop(found.insert(partition, path.clone()));
            }
            Some(_) if name == METADATA => {}
            Some(_) | None => notes.push(format!("{name} is left alone")),
        }
    }
    Ok(found)
}

/// Topics by what Kafka's metadata says of them.
fn metadata(kafka: &Path, notes: &mut Vec<String>) -> Result<(Topics, i64), Failure> {
    let dir = kafka.join(METADATA);
    if !dir.is_dir() {
        notes.push(
            "there is no metadata log: identifiers come from the directories, retention is off"
                .into(),
        );
        return Ok((BTreeMap::new(), UNKNOWN_PRODUCER_IDS));
    }
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let has = |path: &&PathBuf, extension: &str| path.extension().is_some_and(|e| e == extension);
    let snapshot = files.iter().rfind(|p| has(p, "checkpoint"));
    let mut metadata = KafkaMetadata::default();
    for path in snapshot
        .into_iter()
        .chain(files.iter().filter(|p| has(p, "log")))
    {
        let read = metadata.read(Bytes::from(fs::read(path)?));
        read.map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    }
    let known = [(11, "users"), (14, "quotas"), (18, "ACLs")];
    for (kind, what) in known {
        if let Some(count) = metadata.others.get(&kind) {
            notes.push(format!("{count} records of {what} are left alone: add them with `callboard user`, `acl` and `quota`"));
        }
    }
    let next_producer_id = metadata.next_producer_id;
    Ok((metadata.finish(), next_producer_id))
}

/// Without the partitions that compaction has made holes in: their offsets do not continue each other.
fn readable(
    directories: BTreeMap<TopicPartition, PathBuf>,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<TopicPartition, PathBuf>, Failure> {
    let mut with_holes: BTreeSet<TopicName> = BTreeSet::new();
    for (partition, dir) in &directories {
        if has_holes(dir)? {
            let _is_new: bool = with_holes.insert(partition.topic.clone());
        }
    }
    if with_holes.contains(&TopicName::consumer_offsets()) {
        return Err(Failure::new(
            "__consumer_offsets was compacted by Kafka, and compacted logs cannot be read here yet: committed offsets \
             would be lost. Reset the groups' offsets in Kafka's place: remove the __consumer_offsets-* directories \
             from the copy, adopt it, and set offsets with `callboard group reset`",
        ));
    }
    notes.extend(
        with_holes
            .iter()
            .map(|t| format!("{t} was compacted, which cannot be read here yet: it is left alone")),
    );
    Ok(directories
        .into_iter()
        .filter(|(p, _)| !with_holes.contains(&p.topic))
        .collect())
}

/// Whether a batch of a partition does not begin where the one before it ended. A torn end is no hole.
fn has_holes(dir: &Path) -> Result<bool, Failure> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|p| p.extension().is_some_and(|e| e == "log"));
    files.sort();
    let mut expected = None;
    for path in files {
        let file = fs::File::open(&path)?;
        let size = file.metadata()?.len();
        let (mut at, mut bytes) = (0, [0; HEADER_BYTES]);
        while at + HEADER_BYTES as u64 <= size {
            file.read_exact_at(&mut bytes, at)?;
            let header = BatchHeader::read(&bytes);
            let Ok(length) = header.size_bytes() else {
                break;
            };
            if expected.is_some_and(|e| e != header.base_offset) {
                return Ok(true);
            }
            expected = Some(header.next_offset());
            at += length as u64;
        }
    }
    Ok(false)
}

/// What each topic becomes.
fn topics(
    kafka: &Path,
    directories: &BTreeMap<TopicPartition, PathBuf>,
    mut metadata: Topics,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<TopicName, Adopted>, Failure> {
    let mut topics: BTreeMap<TopicName, Adopted> = BTreeMap::new();
    let names: BTreeSet<TopicName> = directories.keys().map(|p| p.topic.clone()).collect();
    for name in names {
        let there: BTreeSet<i32> = directories
            .keys()
            .filter(|p| p.topic == name)
            .map(|p| p.partition)
            .collect();
        let of_kafka = metadata.remove(&name);
        let id = match &of_kafka {
            Some((id, _)) => *id,
            None => id_of(kafka, &name, &there)?,
        };
        let topic = of_kafka.map(|(_, topic)| topic);
        let known = topic.as_ref().map_or(0, |t| t.partitions.len());
        let last = there
            .last()
            .map_or(0, |n| usize::try_from(*n).unwrap_or(0) + 1);
        let count = i32::try_from(known.max(last)).map_err(Failure::new)?;
        let epoch = |number: i32| {
            let said = topic
                .as_ref()
                .and_then(|t| t.partitions.get(&number))
                .map_or(0, |e| e.0);
            let dir = kafka.join(TopicPartition::new(name.clone(), number).to_string());
            let written = LeaderEpochs::read(&RealDisk, &dir)
                .latest()
                .map_or(0, |e| e.0);
            LeaderEpoch(said.max(written)).next()
        };
        let missing = (0..count).filter(|n| !there.contains(n)).count();
        if missing > 0 {
            notes.push(format!("{name}: {missing} of {count} partitions are not in this directory; they begin empty"));
        }
        let epochs = (0..count).map(epoch).collect();
        let configs = configs(&name, topic.map(|t| t.configs), notes);
        drop(topics.insert(
            name,
            Adopted {
                id,
                epochs,
                configs,
                there,
            },
        ));
    }
    for name in metadata.keys().filter(|n| !NOT_OURS.contains(&n.as_str())) {
        notes.push(format!(
            "{name}: no partition of it is in this directory; it is left alone"
        ));
    }
    Ok(topics)
}

/// The identifier that a partition's directory names, or a new one.
fn id_of(kafka: &Path, name: &TopicName, there: &BTreeSet<i32>) -> Result<Uuid, Failure> {
    for number in there {
        let dir = kafka.join(TopicPartition::new(name.clone(), *number).to_string());
        if let Some(id) = read_topic_id(&RealDisk, &dir).map_err(Failure::new)? {
            return Ok(id);
        }
    }
    Ok(Uuid::random())
}

/// The settings that hold here; nothing is deleted that Kafka would have kept.
fn configs(
    name: &TopicName,
    of_kafka: Option<BTreeMap<String, String>>,
    notes: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let keep_all = || [("retention.ms".to_owned(), "-1".to_owned())].into();
    let names_none = of_kafka
        .as_ref()
        .is_some_and(|c| !c.contains_key("retention.ms"));
    if name.is_internal() {
        // The coordinator decides what of it is needed.
        return BTreeMap::new();
    }
    let Some(of_kafka) = of_kafka else {
        return keep_all();
    };
    let mut configs: BTreeMap<String, String> = BTreeMap::new();
    let mut compacts = false;
    for (config, value) in of_kafka {
        let one = [(config.clone(), value.clone())].into();
        match TopicConfig::default().with(&one) {
            Ok(_) => drop(configs.insert(config, value)),
            Err(_) => {
                compacts |= config == "cleanup.policy";
                notes.push(format!(
                    "{name}: {config}={value} is not supported and left out"
                ));
            }
        }
    }
    if names_none && !compacts {
        notes.push(format!("{name}: it had Kafka's default retention; here nothing of it is deleted (retention.ms=-1)"));
        drop(configs.insert("retention.ms".into(), "-1".into()));
    }
    if compacts {
        notes.push(format!(
            "{name}: it was compacted; here nothing of it is deleted (retention.ms=-1)"
        ));
        configs.extend(keep_all());
        drop(configs.remove("retention.bytes"));
    }
    configs
}

fn copy(
    adopt: &Adopt,
    directories: &BTreeMap<TopicPartition, PathBuf>,
    topics: &BTreeMap<TopicName, Adopted>,
) -> Result<(), Failure> {
    fs::create_dir_all(&adopt.data)?;
    let target = if for_a_person() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").map_err(Failure::new)?;
    let bar =
        ProgressBar::with_draw_target(Some(directories.len() as u64), target).with_style(style);
    for (partition, from) in directories {
        bar.set_message(partition.to_string());
        let to = adopt.data.join(partition.to_string());
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            // Nothing but plain files: what a link points to is not ours to copy.
            if fs::symlink_metadata(&path)?.is_file()
                && let Some(name) = path.file_name()
            {
                let to = to.join(name);
                let _bytes = fs::copy(&path, &to)?;
                fs::File::open(&to)?.sync_all()?;
            }
        }
        // Kafka before 2.8 wrote none; without it the marks of the partition would be another topic's.
        if let Some(topic) = topics.get(&partition.topic) {
            write_topic_id(&RealDisk, &to, topic.id).map_err(Failure::new)?;
        }
        bar.inc(1);
    }
    for name in CHECKPOINTS {
        let from = adopt.kafka.join(name);
        if from.is_file() {
            // Lines of topics that are left alone would be another topic's one day.
            let mut marks = checkpoint::parse(&fs::read_to_string(&from)?).unwrap_or_default();
            marks.retain(|partition, _| directories.contains_key(partition));
            fs::write(adopt.data.join(name), checkpoint::format(&marks))?;
        }
    }
    fs::File::open(&adopt.data)?.sync_all()?;
    bar.finish_and_clear();
    Ok(())
}

/// Starts a node on the copy, gives it the topics and stops it in order; the records of each topic.
async fn lead(
    data: &Path,
    meta: &MetaProperties,
    topics: &BTreeMap<TopicName, Adopted>,
    next_producer_id: i64,
) -> Result<BTreeMap<TopicName, i64>, Failure> {
    let mut config = BrokerConfig::default();
    config.node.id = meta.node_id.0;
    config.node.data = data.to_owned();
    // Nothing is deleted before the operator has seen what there is.
    config.log.retention = Span::FOREVER;
    let node = Node::builder()
        .config(config)
        .ephemeral_ports()
        .start()
        .await;
    let node = node.map_err(Failure::new)?;
    // Ids that Kafka gave out are in the logs: they are not given out again.
    node.skip_producer_ids(next_producer_id)
        .await
        .map_err(Failure::new)?;
    for (name, topic) in topics {
        let adopted = node.adopt_topic(
            name.clone(),
            topic.id,
            topic.epochs.clone(),
            topic.configs.clone(),
        );
        adopted
            .await
            .map_err(|e| Failure::new(format!("{name}: {e}")))?;
    }
    let mut records = BTreeMap::new();
    for name in topics.keys() {
        let ends = node.wait_for_ends(name, topics[name].epochs.len()).await;
        let ends = ends.map_err(|e| Failure::new(format!("{name}: {e}")))?;
        let _none = records.insert(name.clone(), ends);
    }
    let unclean = node.stop().await;
    match unclean.first() {
        None => Ok(records),
        Some(partition) => Err(Failure::new(format!("{partition} could not be closed"))),
    }
}

fn report(
    topics: &BTreeMap<TopicName, Adopted>,
    records: &BTreeMap<TopicName, i64>,
    notes: &[String],
    json: bool,
) -> Result<(), Failure> {
    if json {
        let one = |(name, topic): (&TopicName, &Adopted)| {
            json!({"topic": name.as_str(), "id": topic.id.to_string(), "partitions": topic.epochs.len(),
                "in_directory": topic.there.len(), "records": records.get(name), "configs": topic.configs})
        };
        let topics: Vec<_> = topics.iter().map(one).collect();
        return line(json!({"topics": topics, "notes": notes}));
    }
    let row = |(name, topic): (&TopicName, &Adopted)| {
        let records = records.get(name).map(ToString::to_string);
        vec![
            name.to_string(),
            topic.epochs.len().to_string(),
            records.unwrap_or_default(),
            topic.id.to_string(),
        ]
    };
    table(
        &["topic", "partitions", "records", "id"],
        &topics.iter().map(row).collect::<Vec<_>>(),
    )?;
    notes.iter().for_each(note);
    Ok(())
}
