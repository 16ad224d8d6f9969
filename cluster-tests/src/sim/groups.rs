//! A coordinator's core over the partition that its node leads, with the duties of its actor.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use callboard_broker::coordinator::records::batches;
use callboard_broker::coordinator::replay::Replay;
use callboard_broker::coordinator::{
    Answer, Coordinator, Effect, Effects, GroupConfig, Input, Question, Ticket, WriteId,
};
use callboard_broker::leader::{Ends, ProduceError};
use callboard_broker::storage::{Log, ReadMode};
use callboard_common::record::Batch;
use callboard_common::{ErrorCode, Monotonic, Offset};

use super::context::{Cx, Files};
use super::event::{Message, OfPartition, Place};

/// How much of its partition is read at once.
const REPLAY_BYTES: u32 = 4 << 10;
/// The partition is written anew when so much was appended.
const REWRITE_BYTES: u64 = 6_000;

/// What the leader of its partition must do for it.
#[derive(Debug)]
pub enum Work {
    /// Append this, a part of a write.
    Append(WriteId, Batch),
    /// Delete what lies below.
    DeleteBefore(Offset),
}

/// Batches of a write that are under way.
#[derive(Debug)]
struct UnderWay {
    batches: usize,
    first: Option<Offset>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Groups {
    /// Nothing while the partition is replayed.
    core: Option<Coordinator>,
    replay: Replay,
    /// Whether the log cannot be read: somebody else is to lead.
    is_damaged: bool,
    effects: Effects,
    waiting: BTreeMap<Ticket, (Place, u64)>,
    next_ticket: u64,
    under_way: BTreeMap<WriteId, UnderWay>,
    work: VecDeque<Work>,
    bytes_since_rewrite: u64,
    armed: Option<Monotonic>,
    /// Until then somebody else may say what groups have committed.
    contested_until: Option<Monotonic>,
}

impl Groups {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(contested_until: Option<Monotonic>) -> Self {
        Self {
            contested_until,
            ..Self::default()
        }
    }

    /// Takes over what the partition holds, once that can be known.
    ///
    /// # Errors
    ///
    /// The offset from which on the log is damaged; it is told once.
    pub fn replay(&mut self, cx: &mut Cx<'_>, log: &Log, ends: &Ends) -> Result<(), Offset> {
        if self.contested_until > Some(cx.now().monotonic) {
            return Ok(());
        }
        while self.core.is_none() && !self.is_damaged && Replay::is_possible(ends) {
            let (from, to) = (self.replay.next(ends), ends.high_watermark);
            let bytes = match from < to {
                true => log
                    .plan_read(from, to, REPLAY_BYTES, true)
                    .run(ReadMode::Blocking),
                false => Ok(None),
            };
            let bytes = bytes
                .map_err(|e| e.to_string())
                .map(Option::unwrap_or_default);
            match bytes.and_then(|bytes| self.replay.take(bytes, ends)) {
                Ok(false) => {}
                Ok(true) => self.open(cx),
                Err(_) => {
                    self.is_damaged = true;
                    return Err(self.replay.next(ends));
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, cx: &mut Cx<'_>) {
        let replay = std::mem::take(&mut self.replay);
        let config = GroupConfig {
            session_timeout_min: Duration::from_secs(1),
            ..GroupConfig::default()
        };
        let mut core = Coordinator::new(config, cx.now());
        for record in replay.records {
            core.replay(cx.now(), record);
        }
        if replay.skipped > 0 {
            let node = cx.node + 1;
            cx.hub.truth.violate(|| {
                format!("A5: node {node} does not understand what a coordinator has written")
            });
        }
        self.bytes_since_rewrite = replay.size_bytes;
        self.core = Some(core);
    }

    /// A client asks something.
    pub fn ask(&mut self, cx: &mut Cx<'_>, (from, id): (Place, u64), question: Question) {
        if self.core.is_none() {
            let answer = Err(ErrorCode::CoordinatorLoadInProgress);
            return cx
                .hub
                .send(Place::Node(cx.node), from, Message::Answered { id, answer });
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let _none = self.waiting.insert(ticket, (from, id));
        self.step(cx, Input::Ask(ticket, Box::new(question)));
    }

    fn step(&mut self, cx: &mut Cx<'_>, input: Input) {
        if let Some(core) = &mut self.core {
            core.step(cx.now(), input, &mut self.effects);
        }
        while let Some(effect) = self.effects.pop_front() {
            self.perform(cx, effect);
        }
    }

    fn perform(&mut self, cx: &mut Cx<'_>, effect: Effect) {
        match effect {
            Effect::Answer(ticket, answer) => self.answer(cx, ticket, Ok(answer)),
            Effect::Write { write, records } => {
                let batches = batches(&records, cx.now().wall.0);
                let under_way = UnderWay {
                    batches: batches.len(),
                    first: None,
                };
                let _none = self.under_way.insert(write, under_way);
                let sizes = batches.iter().map(|b| b.size_bytes() as u64);
                self.bytes_since_rewrite += sizes.sum::<u64>();
                let appends = batches.into_iter().map(|b| Work::Append(write, b));
                self.work.extend(appends);
            }
            Effect::DeleteBefore(offset) => {
                self.bytes_since_rewrite = 0;
                self.work.push_back(Work::DeleteBefore(offset));
            }
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, ticket: Ticket, answer: Result<Answer, ErrorCode>) {
        if let Some((to, id)) = self.waiting.remove(&ticket) {
            cx.hub
                .send(Place::Node(cx.node), to, Message::Answered { id, answer });
        }
    }

    /// What the leader must do next.
    pub fn work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// What became of a batch of a write.
    pub fn written(
        &mut self,
        cx: &mut Cx<'_>,
        write: WriteId,
        result: Result<Offset, ProduceError>,
    ) {
        let Some(under_way) = self.under_way.get_mut(&write) else {
            return;
        };
        match result {
            Ok(base) => {
                under_way.batches -= 1;
                let first = *under_way.first.get_or_insert(base);
                if under_way.batches == 0 {
                    let _done = self.under_way.remove(&write);
                    self.step(cx, Input::Written { write, base: first });
                    if self.bytes_since_rewrite > REWRITE_BYTES {
                        self.step(cx, Input::Rewrite);
                    }
                }
            }
            Err(ProduceError::DiskFull) => {
                let _done = self.under_way.remove(&write);
                let error = ErrorCode::CoordinatorNotAvailable;
                self.step(cx, Input::WriteFailed { write, error });
            }
            // The records may be in the log: only the log can tell.
            Err(_) => self.begin_anew(cx),
        }
    }

    fn begin_anew(&mut self, cx: &mut Cx<'_>) {
        self.dismiss(cx);
        *self = Self::new(self.contested_until);
    }

    /// Who waits is told nothing certain.
    pub fn dismiss(&mut self, cx: &mut Cx<'_>) {
        for ticket in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.answer(cx, ticket, Err(ErrorCode::NotCoordinator));
        }
    }

    /// The core's deadline may have come.
    pub fn deadline(&mut self, cx: &mut Cx<'_>) {
        if self.armed.take_if(|at| *at <= cx.now().monotonic).is_some() {
            self.step(cx, Input::Tick);
        }
    }

    /// Arms the deadline.
    pub fn arm(&mut self, files: &Files, cx: &mut Cx<'_>) {
        let Some(core) = &self.core else { return };
        let deadline = core.next_deadline();
        files.arm(cx, &mut self.armed, deadline, OfPartition::Groups);
    }
}
