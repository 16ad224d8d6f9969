//! What is committed becomes the image; images take the place of the log behind them.

use std::collections::BTreeSet;
use std::sync::Arc;

use callboard_common::{Monotonic, Now};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, MessageType};
use raft::{SnapshotStatus, Storage};

use super::image::MetadataImage;
use super::records::{Outcome, Refusal, bincode_config};
use super::state::{
    Controller, Effect, Effects, IMAGE_PATIENCE, Persisted, QuorumChange, SNAPSHOT_EVERY_BYTES,
    SavedImage, to_bytes,
};

/// Something that was committed, in bincode; `None` if it is of a newer release.
fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Option<T> {
    let decoded = bincode::decode_from_slice(bytes, bincode_config());
    decoded.ok().map(|(value, _)| value)
}

fn quorum_change(bytes: &[u8]) -> ConfChangeV2 {
    ConfChangeV2::parse_from_bytes(bytes).expect("committed changes of the quorum are whole")
}

impl Controller {
    /// Takes an image from the leader in place of what is here.
    pub(super) fn install(&mut self, snapshot: &raft::eraftpb::Snapshot, out: &mut Effects) {
        let metadata = snapshot.get_metadata();
        let image = decode(&snapshot.data).filter(MetadataImage::is_known);
        let Some(image) = image else {
            return self.give_up(metadata.index, out);
        };
        self.image = Arc::new(image);
        let saved = SavedImage {
            term: metadata.term,
            quorum: metadata.get_conf_state().into(),
            image: self.image.clone(),
        };
        let storage = self.node.store();
        storage
            .replace(saved.clone())
            .expect("raft-rs installs no image that is older than what is here");
        self.snapshot_index = self.image.applied;
        self.unsnapshot_bytes = 0;
        out.push_back(self.save(saved));
    }

    /// Raft waits for what becomes of an image that it sent, and sends nothing else meanwhile.
    pub(super) fn note_images<'a>(
        &mut self,
        now: Now,
        messages: impl Iterator<Item = &'a raft::eraftpb::Message>,
    ) {
        for message in messages.filter(|m| m.get_msg_type() == MessageType::MsgSnapshot) {
            let _before = self.images_sent.insert(message.to, now.monotonic);
        }
    }

    /// A member cannot be reached: what it was sent is lost.
    pub(super) fn is_unreachable(&mut self, raft_id: u64) {
        self.node.report_unreachable(raft_id);
        self.image_was_lost(raft_id);
    }

    /// The image that a member was sent did not arrive, or it is not known whether it did: Raft looks again what it has.
    pub(super) fn image_was_lost(&mut self, raft_id: u64) {
        if self.images_sent.remove(&raft_id).is_some() {
            self.node.report_snapshot(raft_id, SnapshotStatus::Failure);
        }
    }

    pub(super) fn send_images_again(&mut self, now: Now) {
        let late = |at: &Monotonic| now.monotonic.since(*at) >= IMAGE_PATIENCE;
        let due = self.images_sent.iter().filter(|(_, at)| late(at));
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.image_was_lost(id));
    }

    pub(super) fn save(&self, saved: SavedImage) -> Effect {
        let raft = &self.node.raft;
        let (next, last) = (saved.image.applied + 1, raft.raft_log.last_index());
        // What is not applied yet may be on disk already, and counted.
        let rest = match next > last {
            true => Ok(Vec::new()),
            false => {
                raft.store()
                    .entries(next, last + 1, None, raft::GetEntriesContext::empty(false))
            }
        };
        let rest = rest.expect("entries after an image are in memory");
        let rest = Persisted {
            hard_state: Some(to_bytes(&raft.hard_state())),
            entries: rest.iter().map(|e| to_bytes(e)).collect(),
        };
        Effect::Snapshot(Box::new(saved), rest)
    }

    pub(super) fn apply(&mut self, entries: Vec<Entry>, out: &mut Effects) {
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            let is_first_of_term =
                entry.get_entry_type() == EntryType::EntryNormal && entry.data.is_empty();
            let outcome = match entry.get_entry_type() {
                EntryType::EntryNormal => self.apply_command(&entry),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    Some(self.apply_quorum_change(&entry))
                }
            };
            let Some(outcome) = outcome else {
                return self.give_up(index, out);
            };
            if let Some((expected, ticket)) = self.waiting.remove(&index) {
                // Another leader's entry took the place of what was proposed.
                let outcome = if expected == term {
                    outcome
                } else {
                    Err(Refusal::Stopped)
                };
                out.push_back(Effect::Answer(ticket, index, outcome));
            }
            if is_first_of_term {
                self.answer_overtaken(index, term, out);
            }
        }
        self.answer_applied(out);
        self.note_applied();
    }

    /// Answers proposals of which nothing more is heard: an image does not tell of the entries that it stands for, and
    /// what an earlier term put behind one of a later term is gone.
    pub(super) fn answer_overtaken(&mut self, index: u64, term: u64, out: &mut Effects) {
        self.waiting.retain(|at, (of, ticket)| {
            let may_come = *at > index && *of >= term;
            if !may_come {
                out.push_back(Effect::Answer(*ticket, index, Err(Refusal::Stopped)));
            }
            may_come
        });
    }

    /// Tells Raft how far the image is; an image that was installed counts once it is synced.
    pub(super) fn note_applied(&mut self) {
        let (log, applied) = (&self.node.raft.raft_log, self.image.applied);
        if applied > log.applied && applied <= log.committed.min(log.persisted) {
            self.node.advance_apply_to(applied);
        }
    }

    pub(super) fn answer_applied(&mut self, out: &mut Effects) {
        while let Some(first) = self.answered.first_entry() {
            if *first.key() > self.image.applied {
                break;
            }
            let index = *first.key();
            for (ticket, result) in first.remove() {
                out.push_back(Effect::Answer(ticket, index, result));
            }
        }
    }

    /// What a command came to; `None` if it is of a newer release.
    pub(super) fn apply_command(&mut self, entry: &Entry) -> Option<Result<Outcome, Refusal>> {
        let image = Arc::make_mut(&mut self.image);
        // A new leader's first entry is empty.
        if entry.data.is_empty() {
            image.applied = entry.index;
            return Some(Ok(Outcome::Done));
        }
        self.unsnapshot_bytes += entry.data.len();
        let outcome = image.apply(entry.index, decode(&entry.data)?);
        image.is_known().then_some(outcome)
    }

    /// What comes from here on is of a newer release.
    fn give_up(&mut self, index: u64, out: &mut Effects) {
        self.is_too_old = true;
        out.push_back(Effect::TooNew(index));
    }

    pub(super) fn apply_quorum_change(&mut self, entry: &Entry) -> Result<Outcome, Refusal> {
        let change = quorum_change(&entry.data);
        let conf = self.node.apply_conf_change(&change);
        let image = Arc::make_mut(&mut self.image);
        image.applied = entry.index;
        let conf = conf.map_err(|e| Refusal::Quorum(e.to_string()))?;
        // A node that starts again begins with who voted as of its image: if that were long ago it could elect itself.
        // And who joins begins with an image, and raft-rs takes none that does not name it.
        self.snapshot_is_due = true;
        let about = bincode::decode_from_slice::<QuorumChange, _>(&entry.context, bincode_config());
        match about {
            Ok((QuorumChange::Learn(id, member), _)) => {
                let _before = image.members.insert(id, member);
            }
            Ok((QuorumChange::Remove(id), _)) => drop(image.members.remove(&id)),
            Ok((QuorumChange::Promote(_) | QuorumChange::Demote(_), _)) | Err(_) => {}
        }
        image.voters = conf.voters.iter().copied().collect::<BTreeSet<u64>>();
        self.node.store().set_quorum(conf);
        Ok(Outcome::Done)
    }

    /// After how many entries an image takes the place of the log.
    pub fn snapshot_every(&mut self, entries: u64) {
        self.snapshot_every = entries;
    }

    /// Whether an image was taken that Raft does not count yet.
    pub(super) fn image_is_pending(&self) -> bool {
        self.node.raft.raft_log.applied < self.snapshot_index
    }

    pub(super) fn maybe_snapshot(&mut self, out: &mut Effects) {
        if self.node.raft.raft_log.applied < self.image.applied {
            // Raft still reads the entries that it does not know to be in the image.
            return;
        }
        let few = self.image.applied < self.snapshot_index + self.snapshot_every;
        if few && self.unsnapshot_bytes < SNAPSHOT_EVERY_BYTES && !self.snapshot_is_due {
            return;
        }
        self.snapshot(out);
    }

    pub(super) fn snapshot(&mut self, out: &mut Effects) {
        let applied = self.image.applied;
        (self.unsnapshot_bytes, self.snapshot_is_due) = (0, false);
        let raft = &self.node.raft;
        let term = raft
            .raft_log
            .term(applied)
            .expect("an applied entry has a term");
        let saved = SavedImage {
            term,
            quorum: (&raft.prs().conf().to_conf_state()).into(),
            image: self.image.clone(),
        };
        raft.store()
            .compact(saved.clone())
            .expect("what is applied can go");
        self.snapshot_index = applied;
        out.push_back(self.save(saved));
    }
}
