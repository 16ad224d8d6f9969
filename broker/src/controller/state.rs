//! The pure core of the controller: raft-rs' `RawNode` and the image of what it committed.
//!
//! Entries are appended to memory at once and handed out to be persisted; what was persisted comes back as an
//! input, and only then does Raft count it (`advance_append_async`, `on_persist_ready`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use callboard_common::Now;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

use super::image::MetadataImage;
use super::records::{Command, Outcome, Refusal, bincode_config};

/// The node's number in Raft. With one voter there is no other.
const RAFT_ID: u64 = 1;
/// So many bytes of commands beyond the snapshot call for a new one: the log stays far below what is read.
const SNAPSHOT_EVERY_BYTES: usize = 64 << 20;
/// So many entries beyond the snapshot call for a new one.
const SNAPSHOT_EVERY_ENTRIES: u64 = 10_000;

/// Names a caller who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What happens to the controller.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants a change.
    Propose(Ticket, Command),
    /// The write with this number is synced.
    Persisted(u64),
    /// Time has passed.
    Tick,
}

/// Entries and votes to be made durable, as bytes of one write.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Persisted {
    /// Term and vote, if they changed; Raft's own encoding.
    pub hard_state: Option<Vec<u8>>,
    /// Entries in order; Raft's own encoding.
    pub entries: Vec<Vec<u8>>,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append to the metadata log and sync, then say so with this number.
    Persist(u64, Persisted),
    /// Answer a caller.
    Answer(Ticket, Result<Outcome, Refusal>),
    /// Show the image to everybody.
    Publish(Arc<MetadataImage>),
    /// Replace the metadata log by this image, which `term` and the image's index date.
    Snapshot {
        /// Term of the last entry in the image.
        term: u64,
        /// The image.
        image: Arc<MetadataImage>,
        /// Term and vote.
        hard_state: Vec<u8>,
    },
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;

/// Why the metadata on disk cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata log cannot be used: {0}")]
pub struct RestoreError(pub String);

/// Raft and its image.
pub struct Controller {
    node: RawNode<MemStorage>,
    image: Arc<MetadataImage>,
    waiting: BTreeMap<u64, Ticket>,
    snapshot_index: u64,
    /// Bytes of commands since then.
    unsnapshot_bytes: usize,
    logger: slog::Logger,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("applied", &self.image.applied)
            .finish_non_exhaustive()
    }
}

fn protobuf_error(error: impl std::fmt::Display) -> RestoreError {
    RestoreError(error.to_string())
}

impl Controller {
    /// Restores the controller from its snapshot and the writes after it; the one voter then leads.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if snapshot and writes do not fit.
    pub fn restore(
        logger: &slog::Logger,
        snapshot: Option<(u64, MetadataImage)>,
        writes: &[Persisted],
        out: &mut Effects,
    ) -> Result<Self, RestoreError> {
        let storage = MemStorage::new_with_conf_state((vec![RAFT_ID], vec![]));
        let (term, image) = snapshot.unwrap_or_default();
        let snapshot_index = image.applied;
        if snapshot_index > 0 {
            let mut raft_snapshot = Snapshot::default();
            let metadata = raft_snapshot.mut_metadata();
            (metadata.index, metadata.term) = (snapshot_index, term);
            metadata.mut_conf_state().voters = vec![RAFT_ID];
            storage
                .wl()
                .apply_snapshot(raft_snapshot)
                .map_err(protobuf_error)?;
        }
        for write in writes {
            if let Some(bytes) = &write.hard_state {
                storage
                    .wl()
                    .set_hardstate(HardState::parse_from_bytes(bytes).map_err(protobuf_error)?);
            }
            let entries: Result<Vec<Entry>, _> = write
                .entries
                .iter()
                .map(|e| Entry::parse_from_bytes(e))
                .collect();
            let entries = entries.map_err(protobuf_error)?;
            let expected = raft::Storage::last_index(&storage).map_err(protobuf_error)? + 1;
            // Writes that a snapshot has overtaken are part of it; a gap is not to be bridged.
            let fresh: Vec<Entry> = entries
                .into_iter()
                .filter(|e| e.index > snapshot_index)
                .collect();
            match fresh.first() {
                Some(first) if first.index > expected => {
                    return Err(RestoreError(format!(
                        "entry {expected} is missing, {} follows",
                        first.index
                    )));
                }
                Some(_) => storage.wl().append(&fresh).map_err(protobuf_error)?,
                None => {}
            }
        }
        let config = Config {
            id: RAFT_ID,
            applied: snapshot_index,
            election_tick: 10,
            heartbeat_tick: 3,
            pre_vote: true,
            check_quorum: true,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            ..Config::default()
        };
        let node = RawNode::new(&config, storage, logger).map_err(protobuf_error)?;
        let image = Arc::new(image);
        let mut controller = Self {
            node,
            image,
            waiting: BTreeMap::new(),
            snapshot_index,
            unsnapshot_bytes: 0,
            logger: logger.clone(),
        };
        // A voter that is alone waits for nobody's heartbeat, so no random timeout is ever drawn.
        controller.node.campaign().map_err(protobuf_error)?;
        controller.drain(out);
        Ok(controller)
    }

    /// The committed metadata.
    #[must_use]
    pub fn image(&self) -> &Arc<MetadataImage> {
        &self.image
    }

    /// Advances by one input and puts what must happen next into `out`, in order.
    ///
    /// # Panics
    ///
    /// Panics if an entry that was committed is not one of our commands: the metadata is then of a newer version.
    pub fn step(&mut self, _now: Now, input: Input, out: &mut Effects) {
        match input {
            Input::Propose(ticket, command) => self.propose(ticket, &command, out),
            Input::Persisted(number) => self.node.on_persist_ready(number),
            Input::Tick => {
                let _has_ready: bool = self.node.tick();
            }
        }
        self.drain(out);
    }

    fn propose(&mut self, ticket: Ticket, command: &Command, out: &mut Effects) {
        let data = bincode::encode_to_vec(command, bincode_config())
            .expect("a command encodes into memory");
        let index = self.node.raft.raft_log.last_index() + 1;
        match self.node.propose(Vec::new(), data) {
            Ok(()) => {
                let _none = self.waiting.insert(index, ticket);
            }
            Err(error) => {
                slog::warn!(self.logger, "command is not proposed"; "error" => %error);
                out.push_back(Effect::Answer(ticket, Err(Refusal::Stopped)));
            }
        }
    }

    /// Takes everything that Raft has ready.
    fn drain(&mut self, out: &mut Effects) {
        let before = self.image.applied;
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            self.apply(ready.take_committed_entries(), out);
            let bytes =
                |m: &dyn protobuf::Message| m.write_to_bytes().expect("it encodes into memory");
            let write = Persisted {
                hard_state: ready.hs().map(|hs| bytes(hs)),
                entries: ready.entries().iter().map(|e| bytes(e)).collect(),
            };
            {
                let mut storage = self.node.raft.raft_log.store.wl();
                storage
                    .append(ready.entries())
                    .expect("entries that Raft appends continue its log");
                if let Some(hard_state) = ready.hs() {
                    storage.set_hardstate(hard_state.clone());
                }
            }
            let number = ready.number();
            let is_empty = write == Persisted::default();
            self.node.advance_append_async(ready);
            if is_empty {
                self.node.on_persist_ready(number);
            } else {
                out.push_back(Effect::Persist(number, write));
            }
        }
        if self.image.applied != before {
            out.push_back(Effect::Publish(self.image.clone()));
            self.maybe_snapshot(out);
        }
    }

    fn apply(&mut self, entries: Vec<Entry>, out: &mut Effects) {
        for entry in entries {
            let index = entry.index;
            let image = Arc::make_mut(&mut self.image);
            // A new leader's first entry is empty.
            if entry.data.is_empty() || entry.get_entry_type() != EntryType::EntryNormal {
                image.applied = index;
                continue;
            }
            self.unsnapshot_bytes += entry.data.len();
            let decoded = bincode::decode_from_slice::<Command, _>(&entry.data, bincode_config());
            let (command, _) =
                decoded.expect("committed entries are commands of this or an older version");
            let outcome = image.apply(index, command);
            if let Some(ticket) = self.waiting.remove(&index) {
                out.push_back(Effect::Answer(ticket, outcome));
            }
        }
        self.node.advance_apply_to(self.image.applied);
    }

    fn maybe_snapshot(&mut self, out: &mut Effects) {
        let applied = self.image.applied;
        let few = applied < self.snapshot_index + SNAPSHOT_EVERY_ENTRIES;
        if few && self.unsnapshot_bytes < SNAPSHOT_EVERY_BYTES {
            return;
        }
        self.unsnapshot_bytes = 0;
        let log = &self.node.raft.raft_log;
        let term = log.term(applied).expect("an applied entry has a term");
        let hard_state = self
            .node
            .raft
            .hard_state()
            .write_to_bytes()
            .expect("it encodes into memory");
        log.store
            .wl()
            .compact(applied)
            .expect("what is applied can go");
        self.snapshot_index = applied;
        out.push_back(Effect::Snapshot {
            term,
            image: self.image.clone(),
            hard_state,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::BrokerId;

    fn logger() -> slog::Logger {
        slog::Logger::root(slog::Discard, slog::o!())
    }

    struct Disk {
        snapshot: Option<(u64, MetadataImage)>,
        writes: Vec<Persisted>,
    }

    /// Performs effects as a perfect disk would, and collects the answers.
    fn settle(
        controller: &mut Controller,
        out: &mut Effects,
        disk: &mut Disk,
    ) -> Vec<Result<Outcome, Refusal>> {
        let mut answers = Vec::new();
        while let Some(effect) = out.pop_front() {
            match effect {
                Effect::Persist(number, write) => {
                    disk.writes.push(write);
                    controller.step(Now::default(), Input::Persisted(number), out);
                }
                Effect::Answer(_, answer) => answers.push(answer),
                Effect::Publish(_) => {}
                Effect::Snapshot {
                    term,
                    image,
                    hard_state,
                } => {
                    disk.snapshot = Some((term, (*image).clone()));
                    disk.writes = vec![Persisted {
                        hard_state: Some(hard_state),
                        entries: vec![],
                    }];
                }
            }
        }
        answers
    }

    fn open(disk: &mut Disk) -> Controller {
        let mut out = Effects::new();
        let mut controller =
            Controller::restore(&logger(), disk.snapshot.clone(), &disk.writes, &mut out)
                .expect("restores");
        assert_eq!(settle(&mut controller, &mut out, disk), []);
        controller
    }

    fn allocate(controller: &mut Controller, disk: &mut Disk) -> Vec<Result<Outcome, Refusal>> {
        let mut out = Effects::new();
        let command = Command::AllocateProducerIds {
            broker: BrokerId(1),
            count: 10,
        };
        controller.step(Now::default(), Input::Propose(Ticket(1), command), &mut out);
        settle(controller, &mut out, disk)
    }

    #[test]
    fn a_command_is_answered_when_it_is_synced_and_survives() {
        let mut disk = Disk {
            snapshot: None,
            writes: Vec::new(),
        };
        let mut controller = open(&mut disk);
        let mut out = Effects::new();
        let command = Command::AllocateProducerIds {
            broker: BrokerId(1),
            count: 10,
        };
        controller.step(Now::default(), Input::Propose(Ticket(1), command), &mut out);
        assert!(
            !out.iter().any(|e| matches!(e, Effect::Answer(..))),
            "not before the sync: {out:?}"
        );
        assert_eq!(
            settle(&mut controller, &mut out, &mut disk),
            [Ok(Outcome::ProducerIds { first: 0 })]
        );
        for first in [10, 20, 30] {
            let mut controller = open(&mut disk);
            assert_eq!(controller.image().next_producer_id, first);
            assert_eq!(
                allocate(&mut controller, &mut disk),
                [Ok(Outcome::ProducerIds { first })]
            );
        }
    }

    #[test]
    fn snapshots_replace_the_log() {
        let mut disk = Disk {
            snapshot: None,
            writes: Vec::new(),
        };
        let mut controller = open(&mut disk);
        for _ in 0..SNAPSHOT_EVERY_ENTRIES + 5 {
            assert_eq!(allocate(&mut controller, &mut disk).len(), 1);
        }
        let image = controller.image().clone();
        assert!(
            disk.snapshot.is_some() && disk.writes.len() < 20,
            "{}",
            disk.writes.len()
        );
        let mut controller = open(&mut disk);
        assert_eq!(controller.image().next_producer_id, image.next_producer_id);
        let next = Outcome::ProducerIds {
            first: image.next_producer_id,
        };
        assert_eq!(allocate(&mut controller, &mut disk), [Ok(next)]);
    }

    #[test]
    fn a_gap_is_not_bridged() {
        let mut disk = Disk {
            snapshot: None,
            writes: Vec::new(),
        };
        let mut controller = open(&mut disk);
        (0..5).for_each(|_| drop(allocate(&mut controller, &mut disk)));
        let first = disk
            .writes
            .iter()
            .position(|w| !w.entries.is_empty())
            .expect("there are entries");
        let _lost = disk.writes.remove(first);
        let result = Controller::restore(&logger(), None, &disk.writes, &mut Effects::new());
        assert!(result.is_err());
    }
}
