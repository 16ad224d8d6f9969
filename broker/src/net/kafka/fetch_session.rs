//! Incremental fetches of one connection (KIP-227): a client names its partitions once and then only changes.
//!
//! Pure. A session lives with its connection, one at a time: a client that comes back on another connection is
//! told that its session is not there and begins a new one, so sessions need no other bound.

use std::collections::BTreeMap;

use callboard_common::protocol::TopicRef;
use callboard_common::protocol::fetch::{FetchPartition, FetchTopic, Fetched, FetchedPartition};
use callboard_common::{ErrorCode, Offset};

const FINAL_EPOCH: i32 = -1;
const INITIAL_EPOCH: i32 = 0;
/// Most partitions of a session.
const MAX_PARTITIONS: usize = 100_000;

/// What a partition of the session was last answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    high_watermark: Option<Offset>,
    log_start: Option<Offset>,
}

#[derive(Debug)]
struct Slot {
    wanted: FetchPartition,
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Session {
    id: i32,
    /// The epoch that the next request must have.
    epoch: i32,
    by_id: bool,
    /// Order of service: who was given records goes to the end.
    order: Vec<(TopicRef, i32)>,
    slots: BTreeMap<(TopicRef, i32), Slot>,
}

/// The sessions of one connection: none or one.
#[derive(Debug, Default)]
pub(super) struct FetchSessions {
    session: Option<Session>,
    next_id: i32,
}

/// What a fetch reads, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Without a session: all is answered.
    Sessionless,
    /// The first of a session: all is answered.
    Full(i32),
    /// A later one: changes are answered.
    Incremental(i32),
}

impl FetchSessions {
    /// Takes a fetch request: what to read for it.
    pub(super) fn request(
        &mut self,
        (id, epoch): (i32, i32),
        by_id: bool,
        topics: Vec<FetchTopic>,
        forgotten: &[(TopicRef, i32)],
    ) -> Result<(Kind, Vec<FetchTopic>), ErrorCode> {
        match epoch {
            FINAL_EPOCH => {
                if self.session.as_ref().is_some_and(|s| s.id == id) {
                    self.session = None;
                }
                Ok((Kind::Sessionless, topics))
            }
            INITIAL_EPOCH => Ok(self.begin(by_id, topics)),
            _ => {
                let session = self.session.as_mut().filter(|s| s.id == id);
                let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
                if session.epoch != epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                if session.by_id != by_id && !(topics.is_empty() && forgotten.is_empty()) {
                    return Err(ErrorCode::FetchSessionTopicIdError);
                }
                session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
                session.change(topics, forgotten);
                Ok((Kind::Incremental(id), session.topics()))
            }
        }
    }

    fn begin(&mut self, by_id: bool, topics: Vec<FetchTopic>) -> (Kind, Vec<FetchTopic>) {
        let count: usize = topics.iter().map(|t| t.partitions.len()).sum();
        if count == 0 || count > MAX_PARTITIONS {
            // Nothing to keep, or too much: the client goes on without a session.
            return (Kind::Sessionless, topics);
        }
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let id = self.next_id;
        let mut session = Session {
            id,
            epoch: 1,
            by_id,
            order: Vec::new(),
            slots: BTreeMap::new(),
        };
        session.change(topics.clone(), &[]);
        self.session = Some(session);
        (Kind::Full(id), topics)
    }

    /// Takes what was read and leaves what is answered; returns the session's id for the answer.
    pub(super) fn response(&mut self, kind: Kind, fetched: &mut Fetched) -> i32 {
        let (id, changes_only) = match kind {
            Kind::Sessionless => return 0,
            Kind::Full(id) => (id, false),
            Kind::Incremental(id) => (id, true),
        };
        let Some(session) = self.session.as_mut().filter(|s| s.id == id) else {
            return id;
        };
        let mut served = Vec::new();
        for topic in &mut fetched.topics {
            let name = topic.topic.clone();
            topic.partitions.retain(|partition| {
                let key = (name.clone(), partition.partition);
                let changed = session.show(&key, partition);
                if !partition.records.bytes().is_empty() {
                    served.push(key);
                }
                changed || !changes_only
            });
        }
        fetched.topics.retain(|t| !t.partitions.is_empty());
        if !served.is_empty() {
            session.order.retain(|key| !served.contains(key));
            session.order.extend(served);
        }
        id
    }
}

impl Session {
    fn change(&mut self, topics: Vec<FetchTopic>, forgotten: &[(TopicRef, i32)]) {
        for topic in topics {
            for wanted in topic.partitions {
                let key = (topic.topic.clone(), wanted.partition);
                if let Some(slot) = self.slots.get_mut(&key) {
                    slot.wanted = wanted;
                } else if self.slots.len() < MAX_PARTITIONS {
                    self.order.push(key.clone());
                    let _none = self.slots.insert(
                        key,
                        Slot {
                            wanted,
                            shown: None,
                        },
                    );
                }
            }
        }
        for key in forgotten {
            if self.slots.remove(key).is_some() {
                self.order.retain(|k| k != key);
            }
        }
    }

    /// All partitions in order of service.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (topic, number) in &self.order {
            let Some(slot) = self.slots.get(&(topic.clone(), *number)) else {
                continue;
            };
            match topics.last_mut() {
                Some(last) if last.topic == *topic => last.partitions.push(slot.wanted),
                _ => topics.push(FetchTopic {
                    topic: topic.clone(),
                    partitions: vec![slot.wanted],
                }),
            }
        }
        topics
    }

    /// Notes an answer; whether there is something in it that the client does not know.
    fn show(&mut self, key: &(TopicRef, i32), partition: &FetchedPartition) -> bool {
        let Some(slot) = self.slots.get_mut(key) else {
            return true;
        };
        let shown = Shown {
            high_watermark: partition.high_watermark,
            log_start: partition.log_start,
        };
        let changed = partition.error != ErrorCode::None
            || !partition.records.bytes().is_empty()
            || partition.preferred_replica.is_some()
            || slot.shown.is_none_or(|before| before != shown);
        slot.shown = Some(shown);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use callboard_common::protocol::fetch::FetchedTopic;

    fn wanted(partition: i32, offset: i64) -> FetchPartition {
        FetchPartition {
            partition,
            current_epoch: None,
            offset,
            max_bytes: 100,
        }
    }

    fn topics(partitions: &[FetchPartition]) -> Vec<FetchTopic> {
        vec![FetchTopic {
            topic: TopicRef::Name("t".into()),
            partitions: partitions.to_vec(),
        }]
    }

    fn fetched(partitions: &[(i32, i64, &'static [u8])]) -> Fetched {
        let one = |(partition, end, records): &(i32, i64, &'static [u8])| FetchedPartition {
            partition: *partition,
            error: ErrorCode::None,
            high_watermark: Some(Offset::new(*end)),
            log_start: Some(Offset::ZERO),
            preferred_replica: None,
            records: Bytes::from_static(records).into(),
        };
        let partitions = partitions.iter().map(one).collect();
        Fetched {
            topics: vec![FetchedTopic {
                topic: TopicRef::Name("t".into()),
                partitions,
            }],
        }
    }

    fn numbers(fetched: &Fetched) -> Vec<i32> {
        fetched
            .topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| p.partition))
            .collect()
    }

    #[test]
    fn only_changes_are_named_and_answered() {
        let mut sessions = FetchSessions::default();
        let (kind, read) = sessions
            .request((0, 0), false, topics(&[wanted(0, 5), wanted(1, 7)]), &[])
            .expect("begins");
        assert_eq!((kind, read.len()), (Kind::Full(1), 1));
        let mut answer = fetched(&[(0, 9, b"records"), (1, 7, b"")]);
        assert_eq!(sessions.response(kind, &mut answer), 1);
        assert_eq!(numbers(&answer), [0, 1], "the first answer is whole");

        let (kind, read) = sessions
            .request((1, 1), false, topics(&[wanted(0, 9)]), &[])
            .expect("goes on");
        let read: Vec<_> = read
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (p.partition, p.offset)))
            .collect();
        assert_eq!(read, [(1, 7), (0, 9)], "who was served goes to the end");
        let mut answer = fetched(&[(1, 7, b""), (0, 9, b"")]);
        assert_eq!(sessions.response(kind, &mut answer), 1);
        assert_eq!(numbers(&answer), [0; 0], "nothing has changed");

        let gone = [(TopicRef::Name("t".into()), 0)];
        let (kind, read) = sessions
            .request((1, 2), false, vec![], &gone)
            .expect("goes on");
        assert_eq!(read[0].partitions.len(), 1);
        let mut answer = fetched(&[(1, 8, b"")]);
        assert_eq!(sessions.response(kind, &mut answer), 1);
        assert_eq!(numbers(&answer), [1], "a new high watermark is a change");
    }

    #[test]
    fn wrong_sessions_are_refused() {
        let mut sessions = FetchSessions::default();
        let mut request = |id, epoch, by_id| {
            sessions
                .request((id, epoch), by_id, topics(&[wanted(0, 0)]), &[])
                .map(|r| r.0)
        };
        assert_eq!(request(7, 1, false), Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(request(0, 0, false), Ok(Kind::Full(1)));
        assert_eq!(
            request(1, 2, false),
            Err(ErrorCode::InvalidFetchSessionEpoch)
        );
        assert_eq!(
            request(1, 1, true),
            Err(ErrorCode::FetchSessionTopicIdError)
        );
        assert_eq!(
            request(0, 0, false),
            Ok(Kind::Full(2)),
            "a new session takes the old one's place"
        );
        assert_eq!(request(1, 1, false), Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(request(2, -1, false), Ok(Kind::Sessionless));
        assert_eq!(request(2, 1, false), Err(ErrorCode::FetchSessionIdNotFound));
    }
}
