//! Random histories that are legal, line by line: from a model of a log that loses nothing.

use super::line::{Kind, Line};
use super::{Nanos, Outcome};
use crate::sim::random::Random;

/// How large a history is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many records are sent.
    pub sends: u64,
    /// To how many partitions.
    pub keys: u32,
    /// By how many producers.
    pub producers: u32,
    /// So many of a hundred sends get no answer; half of them were done.
    pub unknown_percent: u64,
}

struct Key {
    name: String,
    log: Vec<u64>,
    delivered: usize,
    committed: i64,
}

const GROUP: &str = "group";
/// Members are processes from here.
const MEMBERS: u32 = 1_000;
const READER: u32 = 2_000;
const POLLED_MAX: u64 = 50;

fn records(key: &Key, range: std::ops::Range<usize>) -> Vec<(i64, Option<u64>)> {
    let record = |n: usize| (n as i64, Some(key.log[n]));
    range.map(record).collect()
}

/// Hands the lines of a history to `out`, in order: sends by several producers, a group of two members that poll, commit
/// and hand partitions over, readings of watermarks and settings, and the final reading of every partition.
pub fn generate(seed: u64, size: Size, mut out: impl FnMut(&Line<'_>)) {
    let mut random = Random::new(seed, "history");
    let mut keys: Vec<Key> = (0..size.keys)
        .map(|n| Key {
            name: format!("orders-{n}"),
            log: Vec::new(),
            delivered: 0,
            committed: -1,
        })
        .collect();
    let mut now: Nanos = 1;
    let mut owners = vec![(MEMBERS, 0); keys.len()];
    for (key, owner) in keys.iter().zip(&owners) {
        now += 10;
        out(&assign(key, *owner, now));
    }
    for value in 0..size.sends {
        now += random.between(5, 50);
        let index = random.below(keys.len() as u64) as usize;
        let process = (value % u64::from(size.producers)) as u32;
        out(&send(
            &mut random,
            &mut keys[index],
            process,
            value,
            now,
            size,
        ));
        if random.below(20) == 0 {
            now += 100;
            deliver(
                &mut random,
                &mut keys[index],
                owners[index],
                &mut now,
                &mut out,
            );
        }
        if random.below(500) == 0 {
            now += 100;
            hand_over(&keys[index], &mut owners[index], &mut now, &mut out);
        }
    }
    settings(&mut random, &mut now, &mut out);
    for (key, owner) in keys.iter_mut().zip(owners) {
        while key.delivered < key.log.len() {
            deliver(&mut random, key, owner, &mut now, &mut out);
        }
        now += 10;
        out(&Line {
            f: Kind::Drain,
            process: READER,
            invoke: now,
            complete: now + 5,
            key: Some(&key.name),
            start: Some(0),
            high: Some(key.log.len() as i64),
            records: records(key, 0..key.log.len()),
            ..Line::default()
        });
    }
}

fn send<'a>(
    random: &mut Random,
    key: &'a mut Key,
    process: u32,
    value: u64,
    now: Nanos,
    size: Size,
) -> Line<'a> {
    let unknown = random.percent(size.unknown_percent);
    let mut offset = None;
    if !unknown || random.percent(50) {
        offset = Some(key.log.len() as i64);
        key.log.push(value);
    }
    Line {
        f: Kind::Send,
        process,
        invoke: now,
        complete: now + 4,
        outcome: match unknown {
            true => Outcome::Info,
            false => Outcome::Ok,
        },
        key: Some(&key.name),
        value: Some(value),
        offset: offset.filter(|_| !unknown),
        ..Line::default()
    }
}

fn assign<'a>(key: &'a Key, (process, epoch): (u32, i32), now: Nanos) -> Line<'a> {
    Line {
        f: Kind::Assign,
        process,
        invoke: now,
        complete: now + 1,
        key: Some(&key.name),
        group: Some(GROUP),
        epoch: Some(epoch),
        offset: Some(key.committed.max(0)),
        ..Line::default()
    }
}

/// The owner polls, commits what it polled, and asks for the ends.
fn deliver(
    random: &mut Random,
    key: &mut Key,
    (process, epoch): (u32, i32),
    now: &mut Nanos,
    out: &mut impl FnMut(&Line<'_>),
) {
    let to = (key.delivered + random.between(1, POLLED_MAX) as usize).min(key.log.len());
    let polled = key.delivered..to;
    key.delivered = to;
    let line = |f: Kind, at: Nanos| Line {
        f,
        process,
        invoke: at,
        complete: at + 5,
        ..Line::default()
    };
    if !polled.is_empty() {
        out(&Line {
            key: Some(&key.name),
            group: Some(GROUP),
            records: records(key, polled),
            ..line(Kind::Poll, *now)
        });
        key.committed = to as i64;
        out(&Line {
            key: Some(&key.name),
            group: Some(GROUP),
            epoch: Some(epoch),
            offset: Some(key.committed),
            ..line(Kind::Commit, *now + 10)
        });
        out(&Line {
            key: Some(&key.name),
            group: Some(GROUP),
            offset: Some(key.committed),
            ..line(Kind::Committed, *now + 20)
        });
    }
    let end = key.log.len() as i64;
    out(&Line {
        key: Some(&key.name),
        start: Some(0),
        high: Some(end),
        stable: Some(end),
        ..line(Kind::Watermarks, *now + 30)
    });
    *now += 40;
}

fn hand_over(key: &Key, owner: &mut (u32, i32), now: &mut Nanos, out: &mut impl FnMut(&Line<'_>)) {
    out(&Line {
        f: Kind::Revoke,
        process: owner.0,
        invoke: *now,
        complete: *now + 1,
        key: Some(&key.name),
        group: Some(GROUP),
        ..Line::default()
    });
    *owner = (MEMBERS + (owner.0 + 1) % 2, owner.1 + 1);
    *now += 10;
    out(&assign(key, *owner, *now));
    *now += 10;
}

fn settings(random: &mut Random, now: &mut Nanos, out: &mut impl FnMut(&Line<'_>)) {
    let key = Some("topic orders: retention.ms");
    let mut line = |f: Kind, value: u64, last: bool| {
        *now += random.between(10, 20);
        out(&Line {
            f,
            process: READER,
            invoke: *now,
            complete: *now + 5,
            key,
            value: Some(value),
            broker: (f == Kind::Read).then_some(1),
            last,
            ..Line::default()
        });
    };
    for value in 0..20 {
        line(Kind::Write, value, false);
        line(Kind::Read, value, false);
    }
    line(Kind::Read, 19, true);
}
