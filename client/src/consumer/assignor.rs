//! Who of a group reads which partition; pure. And the bytes in which Kafka's clients exchange it.
//!
//! Sources: Kafka's `ConsumerProtocol` (subscription version 1, assignment version 0), `RangeAssignor`,
//! `RoundRobinAssignor`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use callboard_common::{TopicName, TopicPartition};

/// Assignors by Kafka's names, preferred ones first.
pub(crate) const ASSIGNORS: [&str; 2] = ["range", "roundrobin"];

/// Partitions by member.
pub(crate) type Assignment = BTreeMap<String, Vec<TopicPartition>>;

/// Gives every partition of the subscribed topics to one member.
pub(crate) fn assign(
    assignor: &str,
    subscriptions: &BTreeMap<String, Vec<TopicName>>,
    partitions: &BTreeMap<TopicName, usize>,
) -> Assignment {
    let mut assignment: Assignment = subscriptions
        .keys()
        .map(|m| (m.clone(), Vec::new()))
        .collect();
    match assignor {
        "roundrobin" => round_robin(subscriptions, partitions, &mut assignment),
        _ => range(subscriptions, partitions, &mut assignment),
    }
    assignment
}

/// Per topic, consecutive partitions to each member; the first members get one more.
fn range(
    subscriptions: &BTreeMap<String, Vec<TopicName>>,
    partitions: &BTreeMap<TopicName, usize>,
    assignment: &mut Assignment,
) {
    for (topic, count) in partitions {
        let members: Vec<&String> = subscriptions
            .iter()
            .filter(|(_, t)| t.contains(topic))
            .map(|(m, _)| m)
            .collect();
        if members.is_empty() {
            continue;
        }
        let (each, more) = (count / members.len(), count % members.len());
        let mut next = 0;
        for (i, member) in members.into_iter().enumerate() {
            let take = each + usize::from(i < more);
            let given = (next..next + take).map(|n| TopicPartition::new(topic.clone(), n as i32));
            assignment.entry(member.clone()).or_default().extend(given);
            next += take;
        }
    }
}

/// All partitions in a row, to the members in turn.
fn round_robin(
    subscriptions: &BTreeMap<String, Vec<TopicName>>,
    partitions: &BTreeMap<TopicName, usize>,
    assignment: &mut Assignment,
) {
    let members: Vec<&String> = subscriptions.keys().collect();
    let mut turn = 0;
    for (topic, count) in partitions {
        if !subscriptions.values().any(|topics| topics.contains(topic)) {
            continue;
        }
        for number in 0..*count {
            while !subscriptions[members[turn % members.len()]].contains(topic) {
                turn += 1;
            }
            let member = members[turn % members.len()].clone();
            assignment
                .entry(member)
                .or_default()
                .push(TopicPartition::new(topic.clone(), number as i32));
            turn += 1;
        }
    }
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn string(bytes: &mut Bytes) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    if length > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}

fn put_partitions(out: &mut BytesMut, partitions: &[TopicPartition]) {
    let mut topics: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics
            .entry(&partition.topic)
            .or_default()
            .push(partition.partition);
    }
    out.put_i32(topics.len() as i32);
    for (topic, numbers) in topics {
        put_string(out, topic.as_str());
        out.put_i32(numbers.len() as i32);
        numbers.into_iter().for_each(|n| out.put_i32(n));
    }
}

/// The bytes of a subscription.
pub(crate) fn encode_subscription(topics: &BTreeSet<TopicName>, owned: &[TopicPartition]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    out.put_i32(topics.len() as i32);
    topics.iter().for_each(|t| put_string(&mut out, t.as_str()));
    out.put_i32(-1);
    put_partitions(&mut out, owned);
    out.freeze()
}

/// The topics of a subscription of any version; what follows them is not needed.
pub(crate) fn decode_subscription(mut bytes: Bytes) -> Option<Vec<TopicName>> {
    let _version = bytes.try_get_i16().ok()?;
    let count = bytes.try_get_i32().ok()?;
    (0..count)
        .map(|_| TopicName::new(&string(&mut bytes)?).ok())
        .collect()
}

/// The bytes of an assignment.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_partitions(&mut out, partitions);
    out.put_i32(-1);
    out.freeze()
}

/// The partitions of an assignment; no bytes are none.
pub(crate) fn decode_assignment(mut bytes: Bytes) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let _version = bytes.try_get_i16().ok()?;
    let mut partitions = Vec::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        let topic = TopicName::new(&string(&mut bytes)?).ok()?;
        for _ in 0..bytes.try_get_i32().ok()? {
            partitions.push(TopicPartition::new(
                topic.clone(),
                bytes.try_get_i32().ok()?,
            ));
        }
    }
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(i: usize) -> TopicName {
        TopicName::new(&format!("t{i}")).expect("valid")
    }

    #[test]
    fn range_gives_the_first_members_one_more() {
        let subscriptions = ["a", "b", "c"]
            .map(|m| (m.to_owned(), vec![name(0)]))
            .into();
        let assignment = assign("range", &subscriptions, &BTreeMap::from([(name(0), 7)]));
        let sizes: Vec<_> = assignment.values().map(Vec::len).collect();
        assert_eq!(sizes, [3, 2, 2]);
        assert_eq!(
            assignment["a"]
                .iter()
                .map(|p| p.partition)
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    /// The bytes that Java's `ConsumerProtocol` writes.
    #[test]
    fn the_bytes_are_javas() {
        let topics = BTreeSet::from([name(0)]);
        assert_eq!(
            encode_subscription(&topics, &[]),
            &b"\0\x01\0\0\0\x01\0\x02t0\xff\xff\xff\xff\0\0\0\0"[..]
        );
        let assignment = encode_assignment(&[TopicPartition::new(name(0), 3)]);
        assert_eq!(
            assignment,
            &b"\0\0\0\0\0\x01\0\x02t0\0\0\0\x01\0\0\0\x03\xff\xff\xff\xff"[..]
        );
        assert_eq!(
            decode_assignment(assignment),
            Some(vec![TopicPartition::new(name(0), 3)])
        );
        assert_eq!(
            decode_assignment(Bytes::from_static(b"\0\0\x7f\xff\xff\xff")),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every partition that somebody wants has one owner, who wants it.
        #[test]
        fn assignments_are_complete_and_wanted(
            members in prop::collection::vec(prop::collection::btree_set(0usize..4, 0..4), 1..6),
            counts in prop::collection::vec(0usize..9, 4),
            robin in any::<bool>(),
        ) {
            let subscriptions: BTreeMap<String, Vec<TopicName>> = members.iter().enumerate()
                .map(|(i, topics)| (format!("m{i}"), topics.iter().map(|t| name(*t)).collect())).collect();
            let partitions: BTreeMap<TopicName, usize> = counts.iter().enumerate().map(|(i, c)| (name(i), *c)).collect();
            let assignment = assign(if robin { "roundrobin" } else { "range" }, &subscriptions, &partitions);
            let mut owned = BTreeSet::new();
            for (member, given) in &assignment {
                for partition in given {
                    prop_assert!(subscriptions[member].contains(&partition.topic));
                    prop_assert!(owned.insert(partition.clone()), "one owner");
                }
            }
            let wanted: usize = partitions.iter()
                .filter(|(t, _)| subscriptions.values().any(|s| s.contains(t))).map(|(_, c)| c).sum();
            prop_assert_eq!(owned.len(), wanted);
        }
    }
}
