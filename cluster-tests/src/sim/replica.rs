//! One partition on one node: its log, who leads or follows it here, and how it starts again after a failure.

use std::collections::BTreeMap;

use callboard_broker::controller::{PartitionImage, READ_LEASE};
use callboard_broker::follower::{Follower, Input as FollowerInput};
use callboard_broker::leader::{Input as LeaderInput, Leader, Replication};
use callboard_broker::replicas::{Duty, Role};
use callboard_broker::storage::log::Opened;
use callboard_broker::storage::{Log, LogFiles, StorageError};
use callboard_broker::supervision::{RestartLimit, Restarts, Verdict};
use callboard_broker::topic_config::TopicConfig;
use callboard_common::{BrokerId, LeaderEpoch, Offset, TopicName};

use super::context::{Ask, Background, Cx, Files};
use super::event::{Event, OfPartition};
use super::following::{FULL_PAUSE, Following, Then};
use super::groups::Groups;
use super::leading::Leading;
use super::plan::{MS, Micros, SECOND};

#[derive(Debug)]
enum State {
    /// Nobody leads, or it starts again soon.
    Idle,
    Leading(Box<Leading>),
    Following(Box<Following>),
    /// A damaged log waits until others are known to be whole.
    WaitsToCut(Box<Log>, Offset),
    /// It has failed too often.
    Offline,
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    /// Its log.
    pub files: Files,
    role: Role,
    state: State,
    restarts: Restarts,
    pending: Vec<Background>,
    broker_epoch: i64,
    me: BrokerId,
    image: PartitionImage,
    alive: BTreeMap<BrokerId, i64>,
}

impl Replica {
    /// Does nothing yet.
    #[must_use]
    pub fn new(files: Files, role: Role, me: BrokerId) -> Self {
        Self {
            files,
            role,
            state: State::Idle,
            restarts: Restarts::new(RestartLimit::default()),
            pending: Vec::new(),
            broker_epoch: -1,
            me,
            image: PartitionImage::new(
                Vec::new(),
                LeaderEpoch(0),
                &std::collections::BTreeSet::new(),
            ),
            alive: BTreeMap::new(),
        }
    }

    /// The core that leads, with its log.
    pub fn leading(&mut self) -> Option<(&Files, &mut Leading)> {
        match &mut self.state {
            State::Leading(leading) => Some((&self.files, leading)),
            State::Idle | State::Following(_) | State::WaitsToCut(..) | State::Offline => None,
        }
    }

    /// The log, if it is open.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        match &self.state {
            State::Leading(leading) => Some(&leading.log),
            State::Following(following) => Some(&following.log),
            State::Idle | State::WaitsToCut(..) | State::Offline => None,
        }
    }

    /// Whether it has given up.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        matches!(self.state, State::Offline)
    }

    /// Whom it follows.
    #[must_use]
    pub fn followed(&self) -> Option<BrokerId> {
        match &self.state {
            State::Following(following) => Some(following.leader),
            State::Idle | State::Leading(_) | State::WaitsToCut(..) | State::Offline => None,
        }
    }

    /// Begins a duty.
    pub fn start(
        &mut self,
        cx: &mut Cx<'_>,
        role: Role,
        broker_epoch: i64,
        alive: BTreeMap<BrokerId, i64>,
    ) {
        self.restarts = Restarts::new(RestartLimit::default());
        (self.broker_epoch, self.alive) = (broker_epoch, alive);
        self.role = role;
        match self.role.duty.clone() {
            Duty::Lead(image) => {
                let epoch = image.epoch;
                self.image = image;
                self.open_to_lead(cx, epoch);
            }
            Duty::Follow(..) => self.open_to_follow(cx),
            Duty::Rest => {}
        }
    }

    /// Runs what an earlier life has begun: the next one waits for it.
    fn settle(&mut self) {
        match &mut self.state {
            State::Leading(leading) => leading.syncing.settle(),
            State::Following(following) => following.syncing.settle(),
            State::Idle | State::WaitsToCut(..) | State::Offline => {}
        }
        for background in self.pending.drain(..) {
            let _result = background.run();
        }
    }

    fn open_to_lead(&mut self, cx: &mut Cx<'_>, epoch: LeaderEpoch) {
        self.files.incarnation += 1;
        self.settle();
        cx.hub.coverage.recoveries += 1;
        let (files, config) = (self.files.files.clone(), self.files.config.clone());
        let durable = self.files.known_durable();
        let opened = Log::open(files, config).map(|mut opened| {
            self.files.judge_opened(cx, durable, &opened);
            opened.log.begin_epoch(epoch);
            opened
        });
        match opened {
            Ok(opened) => self.leads(cx, epoch, opened),
            Err(error) => self.fail(cx, &error),
        }
    }

    fn leads(&mut self, cx: &mut Cx<'_>, epoch: LeaderEpoch, opened: Opened) {
        let Opened {
            log,
            producers,
            damaged,
            ..
        } = opened;
        self.tell(cx, &format!("leads in epoch {epoch}"), &log);
        cx.hub.coverage.elections += 1;
        let of = (self.files.topic_id, &self.files.key);
        for damage in &damaged {
            if let StorageError::Damaged { offset, .. } = damage {
                self.files.files.outstanding.note_damage(*offset);
                cx.hub.coverage.damages += 1;
                cx.asks.push(Ask::Lose(self.files.key.clone()));
            }
        }
        let life = (cx.life, self.files.incarnation);
        cx.hub.truth.reigns(cx.node, of, (epoch, life));
        let settled = damaged.is_empty() && !log.is_in_doubt();
        if settled && let Err(offset) = cx.hub.truth.leads(cx.node, of, epoch, &log) {
            self.files.files.outstanding.note_damage(offset);
            cx.hub.coverage.damages += 1;
            cx.asks.push(Ask::Lose(self.files.key.clone()));
        }
        let now = cx.now();
        let (image, alive) = (self.image.clone(), self.alive.clone());
        let leader = Leader::new(
            now,
            epoch,
            log.config().clone(),
            (log.log_start(), log.high_watermark(), log.log_end()),
            producers,
            Replication::new(now.monotonic, self.me, image, alive, log.log_end()),
        );
        let keeps_offsets = self.files.key.topic == TopicName::consumer_offsets();
        let contested = self
            .role
            .is_contested
            .then(|| now.monotonic.after(READ_LEASE));
        let groups = keeps_offsets.then(|| Groups::new(contested));
        if keeps_offsets && self.role.is_contested {
            let wait = READ_LEASE.as_micros() as Micros;
            self.files.later(cx, wait, OfPartition::Groups);
        }
        self.state = State::Leading(Box::new(Leading::new(log, leader, groups)));
        if self.image.epoch > epoch {
            return self.reopen(cx, self.image.epoch);
        }
        // It arms its deadline, and what is committed without followers is noted.
        self.act(cx, |leading, files, cx| match leading.log.is_in_doubt() {
            true => leading.doubt(files, cx),
            false => leading.step(files, cx, LeaderInput::Tick),
        });
    }

    fn tell(&self, cx: &mut Cx<'_>, what: &str, log: &Log) {
        let (node, key, epochs) = (cx.node + 1, &self.files.key, log.epochs());
        let (start, end, doubt) = (log.log_start(), log.log_end(), log.is_in_doubt());
        let line =
            format!("node {node} {key} {what}: log {start}..{end} in doubt {doubt} {epochs:?}");
        cx.hub.remember(&line);
    }

    fn reopen(&mut self, cx: &mut Cx<'_>, epoch: LeaderEpoch) {
        self.close(cx);
        self.open_to_lead(cx, epoch);
    }

    fn open_to_follow(&mut self, cx: &mut Cx<'_>) {
        self.settle();
        let (files, durable) = (self.files.clone(), self.files.known_durable());
        let open = |log_files, config, cx: &mut Cx<'_>| {
            let opened = Log::open(log_files, config)?;
            files.judge_opened(cx, durable, &opened);
            Ok(opened)
        };
        self.open_by(cx, open);
    }

    fn open_by(
        &mut self,
        cx: &mut Cx<'_>,
        open: impl FnOnce(LogFiles, TopicConfig, &mut Cx<'_>) -> Result<Opened, StorageError>,
    ) {
        self.files.incarnation += 1;
        self.settle();
        self.state = State::Idle;
        cx.hub.coverage.recoveries += 1;
        let opened = open(self.files.files.clone(), self.files.config.clone(), cx);
        match opened {
            Ok(opened) => self.follows(cx, opened),
            Err(error) => self.fail(cx, &error),
        }
    }

    fn follows(&mut self, cx: &mut Cx<'_>, opened: Opened) {
        let Duty::Follow(leader, epoch) = self.role.duty else {
            return;
        };
        let lost = opened.damaged.iter().filter_map(|d| match d {
            StorageError::Damaged { offset, .. } => Some(*offset),
            StorageError::Full { .. }
            | StorageError::Io { .. }
            | StorageError::Content { .. }
            | StorageError::Contradiction { .. } => None,
        });
        let noted = self.files.files.outstanding.damage();
        let lost = lost.chain(noted.filter(|at| *at >= opened.log.log_start()));
        if let Some(first) = lost.min() {
            cx.hub.coverage.damages += 1;
            self.state = State::WaitsToCut(Box::new(opened.log), first);
            return cx.asks.push(Ask::LoseThenCut(self.files.key.clone()));
        }
        let log = opened.log;
        if log.epochs().latest_start() > Some(log.log_end()) {
            let (node, key, epochs) = (cx.node + 1, &self.files.key, log.epochs());
            let end = log.log_end();
            cx.hub.truth.violate(|| {
                format!("I24: node {node} knows reigns of {key} beyond its end {end}: {epochs:?}")
            });
        }
        self.tell(cx, &format!("follows {leader} in epoch {epoch}"), &log);
        let ends = (log.log_start(), log.high_watermark(), log.log_end());
        let follower = Follower::new(epoch, ends, opened.producers);
        let following = Following::new(log, follower, (leader, epoch), self.broker_epoch);
        self.state = State::Following(Box::new(following));
        let at = leader.0 as usize - 1;
        match cx.hub.lane(cx.node, at) {
            Some(_) => self.connected(cx),
            None => cx.hub.after(MS, Event::OpenLane(cx.node, at)),
        }
    }

    /// There is a lane to its leader.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        self.follow(cx, |following, files, cx| {
            following.step(files, cx, FollowerInput::Connected)
        });
    }

    /// Its leader sends something.
    pub fn sent(&mut self, cx: &mut Cx<'_>, part: callboard_broker::peer::protocol::Part) {
        self.follow(cx, |following, files, cx| {
            following.step(files, cx, FollowerInput::Sent(part))
        });
    }

    fn follow(
        &mut self,
        cx: &mut Cx<'_>,
        step: impl FnOnce(&mut Following, &Files, &mut Cx<'_>) -> Result<Then, StorageError>,
    ) {
        let State::Following(following) = &mut self.state else {
            return;
        };
        let then = step(following, &self.files, cx);
        self.pending.append(&mut cx.background);
        match then {
            Ok(Then::Goes) => {}
            Ok(Then::Cut(end)) => {
                self.settle();
                if let Some(log) = self.take_log() {
                    self.open_by(cx, |_, _, _| log.truncate(end));
                }
            }
            Ok(Then::RestartAt(start, producers)) => {
                self.settle();
                if let Some(log) = self.take_log() {
                    self.open_by(cx, |_, _, _| log.restart_at(start, &producers));
                }
            }
            Err(error) => self.fail(cx, &error),
        }
    }

    fn take_log(&mut self) -> Option<Log> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Following(following) => Some(following.log),
            State::WaitsToCut(log, _) => Some(*log),
            State::Idle | State::Leading(_) | State::Offline => None,
        }
    }

    /// Does something with the leader, if this replica leads.
    pub fn act(
        &mut self,
        cx: &mut Cx<'_>,
        step: impl FnOnce(&mut Leading, &Files, &mut Cx<'_>) -> Result<(), StorageError>,
    ) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let done = step(leading, &self.files, cx);
        self.pending.append(&mut cx.background);
        if let Err(error) = done {
            self.fail(cx, &error);
        }
    }

    /// The actor panics.
    pub fn crash(&mut self, cx: &mut Cx<'_>) {
        let failed = std::io::Error::other("it panicked");
        self.fail(
            cx,
            &StorageError::io("acting on", &self.files.files.dir)(failed),
        );
    }

    /// The state is dropped and the log opened anew, as the supervisor does.
    fn fail(&mut self, cx: &mut Cx<'_>, error: &StorageError) {
        cx.hub
            .remember(&format!("node {} {}: {error}", cx.node + 1, self.files.key));
        self.settle();
        if let State::Leading(leading) = &mut self.state {
            leading.dismiss(cx);
        }
        self.state = State::Idle;
        self.files.incarnation += 1;
        let follows = matches!(self.role.duty, Duty::Follow(..));
        if follows && matches!(error, StorageError::Full { .. }) {
            cx.asks.push(Ask::StepAside(self.files.key.clone()));
            return self.files.later(cx, SECOND, OfPartition::Restart);
        }
        match self.restarts.failed(cx.now().monotonic) {
            Verdict::RestartAfter(wait) => {
                self.files
                    .later(cx, wait.as_micros() as u64, OfPartition::Restart);
            }
            Verdict::GiveUp => self.state = State::Offline,
        }
    }

    /// Something happens to the actor.
    pub fn event(&mut self, cx: &mut Cx<'_>, what: OfPartition) {
        match what {
            OfPartition::Synced => {
                self.act(cx, |leading, files, cx| leading.synced(files, cx));
                self.follow(cx, |following, files, cx| following.synced(files, cx));
            }
            OfPartition::Background => {
                if !self.pending.is_empty()
                    && let Err(error) = self.pending.remove(0).run()
                {
                    if matches!(error, StorageError::Full { .. }) {
                        self.keeps_what_left(cx);
                    } else {
                        self.fail(cx, &error);
                    }
                }
            }
            OfPartition::RemoveAgain => self.follow(cx, |following, files, cx| {
                following.step(files, cx, FollowerInput::RemoveAgain)
            }),
            OfPartition::Deadline => self.act(cx, |leading, files, cx| leading.deadline(files, cx)),
            OfPartition::Groups => self.act(cx, |leading, files, cx| {
                leading.coordinate(files, cx, |groups, cx| groups.deadline(cx))
            }),
            OfPartition::Retry => self.follow(cx, |following, files, cx| {
                following.step(files, cx, FollowerInput::Retry)
            }),
            OfPartition::Restart => match self.role.duty {
                // Nothing is accepted any more in the reign of the life that failed.
                Duty::Lead(_) => cx.asks.push(Ask::NewEpoch(self.files.key.clone())),
                Duty::Follow(..) => self.open_to_follow(cx),
                Duty::Rest => {}
            },
            OfPartition::Lose => cx.asks.push(Ask::LoseThenCut(self.files.key.clone())),
            OfPartition::Feed(_) => {}
        }
    }

    /// A leader looks after what left its log with its next deadline, a follower has no other reason to.
    fn keeps_what_left(&self, cx: &mut Cx<'_>) {
        if matches!(self.role.duty, Duty::Follow(..)) {
            self.files.later(cx, FULL_PAUSE, OfPartition::RemoveAgain);
        }
    }

    /// What the controller answered to a leader that wants another reign.
    pub fn reign(&mut self, cx: &mut Cx<'_>, epoch: Option<LeaderEpoch>) {
        match epoch {
            Some(epoch) if matches!(self.state, State::Idle) => self.open_to_lead(cx, epoch),
            Some(_) => {}
            None => {
                let failed = std::io::Error::other("the controller gave no leader epoch");
                self.fail(
                    cx,
                    &StorageError::io("opening", &self.files.files.dir)(failed),
                );
            }
        }
    }

    /// What the controller answered to a replica that is damaged.
    pub fn lost(&mut self, cx: &mut Cx<'_>, others_are_whole: bool) {
        let State::WaitsToCut(_, first) = self.state else {
            return;
        };
        if !others_are_whole {
            return self.files.later(cx, SECOND, OfPartition::Lose);
        }
        if let Some(log) = self.take_log() {
            self.open_by(cx, |_, _, _| log.truncate(first));
        }
    }

    /// The metadata says something else of the partition that is led here.
    pub fn update(
        &mut self,
        cx: &mut Cx<'_>,
        image: PartitionImage,
        alive: BTreeMap<BrokerId, i64>,
    ) {
        (self.image, self.alive) = (image.clone(), alive.clone());
        let State::Leading(leading) = &self.state else {
            return;
        };
        if image.epoch > leading.leader.epoch() {
            return self.reopen(cx, image.epoch);
        }
        let partition = Box::new(image);
        self.act(cx, |leading, files, cx| {
            leading.step(files, cx, LeaderInput::Replicated { partition, alive })
        });
    }

    /// Closes the log in order, as far as the disk does that.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        self.files.incarnation += 1;
        self.settle();
        let closed = match std::mem::replace(&mut self.state, State::Idle) {
            State::Leading(mut leading) => {
                leading.dismiss(cx);
                let Leading { log, leader, .. } = *leading;
                log.close(leader.ends().high_watermark, leader.producers())
            }
            State::Following(following) => {
                let Following { log, follower, .. } = *following;
                log.close(follower.high_watermark(), follower.producers())
            }
            State::Idle | State::WaitsToCut(..) | State::Offline => Ok(()),
        };
        if let Err(error) = closed {
            let line = format!(
                "node {} {} is not closed in order: {error}",
                cx.node + 1,
                self.files.key
            );
            cx.hub.remember(&line);
        }
    }
}
