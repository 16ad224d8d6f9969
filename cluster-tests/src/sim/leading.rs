//! A leader's core over its log, with the duties of its actor: appends, syncs, answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use callboard_broker::coordinator::{Question, WriteId};
use callboard_broker::leader::{
    Acks, Effect, Effects, FetchError, Input, IsrChange, Leader, ProduceError, Refused, Ticket,
};
use callboard_broker::peer::protocol::{Part, PartitionPosition, What};
use callboard_broker::storage::{Log, ReadMode, StorageError, producer_snapshot};
use callboard_common::record::Batch;
use callboard_common::record::producers::SequenceError;
use callboard_common::{BrokerId, LeaderEpoch, Monotonic, Offset};

use super::context::{Ask, Background, Cx, Files};
use super::event::{Message, NotFetched, NotProduced, OfPartition, Place};
use super::groups::{Groups, Work};
use super::plan::MS;
use super::syncing::Syncing;

/// About how much a follower is sent at once.
const PART_BYTES: u32 = 64 << 10;
/// About how much a consumer is sent at once.
const FETCH_BYTES: u32 = 16 << 10;

/// Who waits for an answer.
#[derive(Debug)]
enum Caller {
    Producer(Place, u64, Vec<u64>),
    Reader(Place, u64),
    Coordinator(WriteId),
    Nobody,
}

/// A partition's leader with its open log.
#[derive(Debug)]
pub struct Leading {
    /// The log.
    pub log: Log,
    /// The core.
    pub leader: Leader,
    effects: Effects,
    callers: BTreeMap<Ticket, Caller>,
    next_ticket: u64,
    /// Its syncs.
    pub syncing: Syncing,
    armed: Option<Monotonic>,
    /// The newest incarnation of each follower that was heard of.
    heard: BTreeMap<BrokerId, i64>,
    /// The coordinator, if the partition is of the offsets.
    groups: Option<Groups>,
    /// What it is to hear of its writes.
    written: Vec<(WriteId, Result<Offset, ProduceError>)>,
}

/// What a follower is told at once.
#[derive(Debug)]
pub enum Fed {
    /// This.
    Part(Box<Part>),
    /// There is nothing more yet.
    Nothing,
    /// Ask again later.
    Later,
}

impl Leading {
    /// Over a log that was just opened.
    #[must_use]
    pub fn new(log: Log, leader: Leader, groups: Option<Groups>) -> Self {
        Self {
            log,
            leader,
            effects: Effects::new(),
            callers: BTreeMap::new(),
            next_ticket: 0,
            syncing: Syncing::default(),
            armed: None,
            heard: BTreeMap::new(),
            groups,
            written: Vec::new(),
        }
    }

    fn ticket(&mut self, caller: Caller) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        drop(self.callers.insert(ticket, caller));
        ticket
    }

    /// A producer sends a batch.
    ///
    /// # Errors
    ///
    /// What the disk says: the leader starts again.
    pub fn produce(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        (from, id): (Place, u64),
        batch: Batch,
    ) -> Result<(), StorageError> {
        let records = batch.records(1 << 20).unwrap_or_default();
        let number = |v: Option<Bytes>| v.as_deref().and_then(super::truth::number_of);
        let numbers = records
            .into_iter()
            .filter_map(|r| number(r.value))
            .collect();
        let input = self.append(batch, Caller::Producer(from, id, numbers));
        self.step(files, cx, input)
    }

    /// Somebody wants a batch appended.
    fn append(&mut self, batch: Batch, caller: Caller) -> Input {
        Input::Produce {
            ticket: self.ticket(caller),
            batch,
            acks: Acks::All,
            epoch: self.leader.epoch(),
        }
    }

    /// A consumer wants what follows an offset.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn fetch(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        (from, id): (Place, u64),
        offset: i64,
        epoch: LeaderEpoch,
    ) -> Result<(), StorageError> {
        let ticket = self.ticket(Caller::Reader(from, id));
        let input = Input::Fetch {
            ticket,
            from: offset,
            max_bytes: FETCH_BYTES,
            at_least_one: true,
            current_epoch: Some(epoch),
        };
        self.step(files, cx, input)
    }

    /// Somebody deletes what lies below an offset.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn delete_records(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        before: i64,
    ) -> Result<(), StorageError> {
        let ticket = self.ticket(Caller::Nobody);
        cx.hub
            .truth
            .deleted(files.topic_id, files.key.partition, before);
        let before = Some(before);
        self.step(files, cx, Input::DeleteRecords { ticket, before })
    }

    /// Advances the core and does what follows.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn step(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        input: Input,
    ) -> Result<(), StorageError> {
        self.advance(files, cx, input)?;
        self.coordinate(files, cx, |_, _| {})
    }

    /// A client asks the coordinator something.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn ask(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        asker: (Place, u64),
        question: Question,
    ) -> Result<(), StorageError> {
        self.coordinate(files, cx, |groups, cx| groups.ask(cx, asker, question))
    }

    /// The coordinator does something, and then what follows of it and of what it hears.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn coordinate(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        act: impl FnOnce(&mut Groups, &mut Cx<'_>),
    ) -> Result<(), StorageError> {
        // While it works nothing that its leader does makes it work once more.
        let Some(mut groups) = self.groups.take() else {
            return Ok(());
        };
        act(&mut groups, cx);
        let worked = self.work_for(&mut groups, files, cx);
        self.groups = Some(groups);
        worked
    }

    fn work_for(
        &mut self,
        groups: &mut Groups,
        files: &Files,
        cx: &mut Cx<'_>,
    ) -> Result<(), StorageError> {
        loop {
            if let Err(offset) = groups.replay(cx, &self.log, &self.leader.ends()) {
                self.damaged(files, cx, offset);
            }
            for (write, result) in std::mem::take(&mut self.written) {
                groups.written(cx, write, result);
            }
            match groups.work() {
                Some(Work::Append(write, batch)) => {
                    let input = self.append(batch, Caller::Coordinator(write));
                    self.advance(files, cx, input)?;
                }
                Some(Work::DeleteBefore(offset)) => {
                    self.delete_records(files, cx, offset.get())?;
                }
                None if self.written.is_empty() => break,
                None => {}
            }
        }
        groups.arm(files, cx);
        Ok(())
    }

    fn advance(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        input: Input,
    ) -> Result<(), StorageError> {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            self.leader.step(cx.now(), input, &mut self.effects);
            // What is acknowledged now was committed before.
            let high_watermark = self.leader.ends().high_watermark;
            let of = (files.topic_id, &files.key);
            let committed = cx.hub.truth.commits(cx.node, of, &self.log, high_watermark);
            if let Err(offset) = committed {
                self.damaged(files, cx, offset);
            }
            while let Some(effect) = self.effects.pop_front() {
                if let Some(outcome) = self.perform(files, cx, effect)? {
                    next = Some(outcome);
                }
            }
        }
        self.arm(files, cx);
        Ok(())
    }

    /// The log may lack something: it does not serve yet.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn doubt(&mut self, files: &Files, cx: &mut Cx<'_>) -> Result<(), StorageError> {
        self.leader.doubt(&mut self.effects);
        self.step(files, cx, Input::Tick)
    }

    fn arm(&mut self, files: &Files, cx: &mut Cx<'_>) {
        let deadline = self.leader.next_deadline();
        files.arm(cx, &mut self.armed, deadline, OfPartition::Deadline);
    }

    /// The core's deadline has come.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn deadline(&mut self, files: &Files, cx: &mut Cx<'_>) -> Result<(), StorageError> {
        match self.armed.take() {
            Some(at) if at <= cx.now().monotonic => self.step(files, cx, Input::Tick),
            at => {
                self.armed = at;
                Ok(())
            }
        }
    }

    fn perform(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        effect: Effect,
    ) -> Result<Option<Input>, StorageError> {
        match effect {
            Effect::Append { batch } => {
                return match self.log.append(&batch, self.leader.epoch(), cx.now().wall) {
                    Ok(base) => Ok(Some(Input::Appended { base })),
                    Err(StorageError::Full { .. }) => {
                        cx.asks.push(Ask::StepAside(files.key.clone()));
                        Ok(Some(Input::AppendRefused(Refused::DiskFull)))
                    }
                    Err(error) => Err(error),
                };
            }
            Effect::Sync => self.syncing.want(&mut self.log, files, cx),
            Effect::Acknowledge(ticket, result) => {
                self.acknowledge(files, cx, ticket, result.map(|a| a.base));
            }
            Effect::Read {
                ticket,
                from,
                limit,
                max_bytes,
                at_least_one,
            } => {
                let plan = self.log.plan_read(from, limit, max_bytes, at_least_one);
                let bytes = plan.run(ReadMode::Blocking);
                if let Err(StorageError::Damaged { offset, .. }) = bytes {
                    self.damaged(files, cx, offset);
                }
                let bytes = bytes.map_err(|_| NotFetched::Damaged);
                self.answer_reader(cx, ticket, bytes.map(Option::unwrap_or_default));
            }
            Effect::NothingToRead(ticket) => self.answer_reader(cx, ticket, Ok(Bytes::new())),
            Effect::Refuse(ticket, error) => {
                let error = match error {
                    FetchError::OutOfRange {
                        log_start,
                        high_watermark,
                        ..
                    } => NotFetched::OutOfRange(log_start.get(), high_watermark.get()),
                    FetchError::Fenced { .. }
                    | FetchError::UnknownEpoch { .. }
                    | FetchError::LeaderStopped => NotFetched::NotLeader,
                    FetchError::Content(_) | FetchError::Storage(_) => NotFetched::Damaged,
                };
                self.answer_reader(cx, ticket, Err(error));
            }
            Effect::AdvanceStart { log_start, .. } => {
                self.log.advance_start(log_start);
                return self.retain(files, cx, log_start);
            }
            Effect::Retain { high_watermark } => return self.retain(files, cx, high_watermark),
            Effect::GiveUp => cx.asks.push(Ask::StepAside(files.key.clone())),
            Effect::Settled => {
                self.log.settle_doubt()?;
                let (of, epoch) = ((files.topic_id, &files.key), self.leader.epoch());
                let _read = cx.hub.truth.leads(cx.node, of, epoch, &self.log);
            }
            Effect::ChangeIsr(change) => {
                self.judge_isr(files, cx, &change);
                let epoch = self.leader.epoch();
                cx.asks
                    .push(Ask::ChangeIsr(files.key.clone(), epoch, change));
            }
        }
        Ok(None)
    }

    fn retain(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        high_watermark: Offset,
    ) -> Result<Option<Input>, StorageError> {
        match self
            .log
            .retain(high_watermark, cx.now().wall, self.leader.producers())
        {
            Ok(removal) => {
                // It runs beside the actor: the power may go before it does.
                files.background(cx, removal.map(Background::Removal));
            }
            Err(StorageError::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        let log_start = self.log.log_start();
        Ok(Some(Input::StartAdvanced { log_start }))
    }

    fn acknowledge(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        ticket: Ticket,
        result: Result<Offset, ProduceError>,
    ) {
        match self.callers.remove(&ticket) {
            Some(Caller::Producer(to, id, numbers)) => {
                if let Ok(base) = result {
                    let of = (files.topic_id, &files.key);
                    cx.hub.truth.acknowledges(cx.node, of, base, &numbers);
                }
                let result = result.map_err(NotProduced::Refused);
                let reign = Some(self.leader.epoch());
                let message = Message::Produced { id, reign, result };
                cx.hub.send(Place::Node(cx.node), to, message);
            }
            Some(Caller::Coordinator(write)) => self.written.push((write, result)),
            Some(Caller::Reader(..) | Caller::Nobody) | None => {}
        }
    }

    fn answer_reader(&mut self, cx: &mut Cx<'_>, ticket: Ticket, bytes: Result<Bytes, NotFetched>) {
        let Some(Caller::Reader(to, id)) = self.callers.remove(&ticket) else {
            return;
        };
        let ends = self.leader.ends();
        let (start, committed) = (ends.log_start.get(), ends.high_watermark.get());
        let result = bytes.map(|bytes| (bytes, start, committed));
        cx.hub
            .send(Place::Node(cx.node), to, Message::Fetched { id, result });
    }

    /// A sync has ended.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn synced(&mut self, files: &Files, cx: &mut Cx<'_>) -> Result<(), StorageError> {
        let Some(end) = self.syncing.ended(&mut self.log, files, cx)? else {
            return Ok(());
        };
        self.step(files, cx, Input::Synced { end })?;
        if cx.hub.random.percent(cx.hub.plan.checkpoints) {
            let committed = self.leader.ends().high_watermark;
            match self.log.checkpoint(committed, self.leader.producers()) {
                Ok(snapshot) => {
                    files.background(cx, Some(Background::Snapshot(snapshot)));
                    files.judge_checkpoint(cx, &self.log);
                }
                Err(StorageError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// I10: only an incarnation that has said how far it is may be asked to be in sync.
    fn judge_isr(&self, files: &Files, cx: &mut Cx<'_>, change: &IsrChange) {
        let me = BrokerId(cx.node as i32 + 1);
        for (broker, epoch) in &change.isr {
            let knows = self.heard.get(broker) == Some(epoch);
            if *broker != me && !self.leader.is_in_sync(*broker) && !knows {
                let (node, key) = (cx.node + 1, &files.key);
                cx.hub.truth.violate(|| {
                    format!("I10: node {node} wants {broker} in sync of {key} in incarnation {epoch}, which it has not heard of")
                });
            }
        }
    }

    /// What is read is damaged: if somebody else is whole, that one leads.
    fn damaged(&self, files: &Files, cx: &mut Cx<'_>, offset: Offset) {
        cx.hub.coverage.damages += 1;
        files.files.outstanding.note_damage(offset);
        cx.asks.push(Ask::Lose(files.key.clone()));
    }

    /// A follower says how far it is and wants what follows.
    ///
    /// # Errors
    ///
    /// As [`Leading::produce`].
    pub fn feed(
        &mut self,
        files: &Files,
        cx: &mut Cx<'_>,
        replica: BrokerId,
        position: &PartitionPosition,
    ) -> Result<Fed, StorageError> {
        let (epoch, log_start) = (self.leader.epoch(), self.log.log_start());
        if epoch < position.epoch {
            return Ok(Fed::Later);
        }
        if epoch > position.epoch {
            return Ok(Fed::Part(self.part(position, What::NotLeader)));
        }
        if !self.leader.is_replica(replica) {
            return Ok(Fed::Later);
        }
        if self.leader.ends().in_doubt.is_some() {
            let compared = Input::Compared {
                replica,
                broker_epoch: position.broker_epoch,
                theirs: (position.last_epoch, position.end),
                ours: (self.log.last_epoch(), self.log.log_end()),
            };
            self.step(files, cx, compared)?;
            if self.leader.ends().in_doubt.is_some() {
                return Ok(Fed::Later);
            }
        }
        if position.end < log_start {
            let producers = self.leader.producers().up_to(log_start.get());
            let producers = Bytes::from(producer_snapshot::encode(&producers));
            let what = What::TooOld(log_start, producers.into());
            return Ok(Fed::Part(self.part(position, what)));
        }
        let diverged = position.last_epoch;
        if let Some((epoch, end)) = diverged.and_then(|e| self.log.divergence(e, position.end)) {
            return Ok(Fed::Part(self.part(position, What::Diverged(epoch, end))));
        }
        let heard = self.heard.entry(replica).or_insert(position.broker_epoch);
        *heard = position.broker_epoch.max(*heard);
        let followed = Input::Followed {
            replica,
            broker_epoch: position.broker_epoch,
            end: position.end,
            synced: position.synced,
        };
        self.step(files, cx, followed)?;
        let log_end = self.leader.ends().log_end;
        if position.end >= log_end {
            return Ok(Fed::Nothing);
        }
        let plan = self.log.plan_read(position.end, log_end, PART_BYTES, true);
        match plan.run(ReadMode::Blocking) {
            Ok(bytes) => {
                let records = bytes.unwrap_or_default();
                Ok(Fed::Part(
                    self.part(position, What::Records(records.into())),
                ))
            }
            Err(error) => {
                if let StorageError::Damaged { offset, .. } = error {
                    self.damaged(files, cx, offset);
                }
                Ok(Fed::Later)
            }
        }
    }

    /// What a follower at this position is sent.
    #[must_use]
    pub fn part(&self, position: &PartitionPosition, what: What) -> Box<Part> {
        let ends = self.leader.ends();
        Box::new(Part {
            topic_id: position.topic_id,
            partition: position.partition,
            epoch: position.epoch,
            high_watermark: ends.high_watermark,
            log_start: ends.log_start,
            reign_start: ends.reign_start,
            what,
        })
    }

    /// The leader ends: who waits is told nothing certain.
    pub fn dismiss(&mut self, cx: &mut Cx<'_>) {
        let reign = Some(self.leader.epoch());
        for caller in std::mem::take(&mut self.callers).into_values() {
            let (to, message) = match caller {
                Caller::Producer(to, id, _) => {
                    let result = Err(NotProduced::Refused(ProduceError::LeaderStopped));
                    (to, Message::Produced { id, reign, result })
                }
                Caller::Reader(to, id) => {
                    let result = Err(NotFetched::NotLeader);
                    (to, Message::Fetched { id, result })
                }
                Caller::Coordinator(_) | Caller::Nobody => continue,
            };
            cx.hub.send(Place::Node(cx.node), to, message);
        }
        if let Some(groups) = &mut self.groups {
            groups.dismiss(cx);
        }
    }
}

/// Whether a producer's batch was refused because one before it is missing.
#[must_use]
pub fn is_out_of_order(error: &NotProduced) -> bool {
    matches!(
        error,
        NotProduced::Refused(ProduceError::Sequence(SequenceError::OutOfOrder { .. }))
    )
}

/// After so long a follower is told the high watermark if there is nothing else to tell.
pub const HIGH_WATERMARK_PAUSE: u64 = 100 * MS;
