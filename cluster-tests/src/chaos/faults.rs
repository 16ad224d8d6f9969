//! What is done to real nodes: each fault is put in, held and healed.

use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use super::TOPIC;
use super::limits::Limit;
use super::scene::Scene;
use crate::sim::random::Random;

/// A row of the table of faults in `docs/TESTING.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Row {
    /// A node is killed, more often one that leads, and starts again
    K1,
    /// All nodes are killed at once
    K2,
    /// A node is killed again and again, soon after it has started
    K3,
    /// All nodes are stopped in order, one after the other, and start again
    K4,
    /// A node stands still for a while
    S1,
    /// Two of three nodes stand still
    S2,
    /// A node is cut off: both ways, one way, or from one other
    N1,
    /// A node's network comes and goes twice a second
    N2,
    /// What passes to and from a node is late: 50 to 100 ms, or 200 to 300
    N3,
    /// A node loses 1, 5 or 20 of a hundred packets that come to it, or they come twice, out of order, or damaged
    N4,
    /// A node sends no more than a megabyte in a second
    N5,
    /// All connections of clients over TCP are reset, again and again
    N6,
    /// Nodes are cut off one by one and come back in another order
    N7,
    /// The power of a node goes
    D1,
    /// The power of all nodes goes at once
    D2,
    /// A follower is cut off, then the power of the leader goes
    D3,
    /// A sync fails once
    D5,
    /// A disk is full, and has space again
    D6,
    /// Syncs of a node take long
    D7,
    /// A byte of a log changes, on one node
    D8,
    /// A node starts with an empty disk
    D9,
    /// A node starts with a copy of its disk from some seconds ago
    D10,
    /// The wall clocks of nodes jump, each on its own
    C1,
    /// The nodes' monotonic clocks began at different times; a node is killed
    C2,
    /// A node may have 256 MiB more memory and no more
    M1,
    /// A node gets a tenth of a core
    M2,
    /// The quorum's leader is killed
    R1,
    /// A node votes no more and votes again, while it or another is cut off or killed
    R2,
}

impl Row {
    /// Those that a gate runs, a cell each.
    pub const SHORT: [Self; 10] = [
        Self::K1,
        Self::K2,
        Self::K4,
        Self::S1,
        Self::N1,
        Self::D1,
        Self::D2,
        Self::D5,
        Self::D6,
        Self::R1,
    ];

    /// Whether two of three nodes go on, so that acknowledgements do.
    #[must_use]
    pub fn leaves_quorum(self) -> bool {
        !matches!(self, Self::K2 | Self::S2 | Self::D2 | Self::D3 | Self::N7)
    }
}

fn pause(random: &mut Random, from_ms: u64, to_ms: u64) {
    thread::sleep(Duration::from_millis(random.between(from_ms, to_ms)));
}

/// Does it once, and answers what exactly was done.
///
/// # Panics
///
/// Panics if a node does not start again, or does not stop in order.
pub fn round(row: Row, scene: &mut Scene, random: &mut Random) -> String {
    match row {
        Row::K1 | Row::K2 | Row::K3 | Row::K4 | Row::S1 | Row::S2 | Row::R1 | Row::C2 => {
            processes(row, scene, random)
        }
        Row::N1 | Row::N2 | Row::N3 | Row::N4 | Row::N5 | Row::N6 | Row::N7 => {
            network(row, scene, random)
        }
        Row::C1 => clocks(scene, random),
        Row::M1 | Row::M2 => limits(row, scene, random),
        Row::R2 => voters(scene, random),
        Row::D1
        | Row::D2
        | Row::D3
        | Row::D5
        | Row::D6
        | Row::D7
        | Row::D8
        | Row::D9
        | Row::D10 => disks(row, scene, random),
    }
}

fn all_nodes() -> String {
    "all nodes".to_owned()
}

fn processes(row: Row, scene: &mut Scene, random: &mut Random) -> String {
    let node = match row == Row::R1 {
        true => scene.quorum_leader(),
        false => scene.victim(random),
    };
    if row == Row::K2 {
        scene.kill(&scene.all());
        pause(random, 0, 2_000);
        scene.start(&scene.all());
        return all_nodes();
    } else if row == Row::K3 {
        for _ in 0..4 {
            scene.kill(&[node]);
            scene.start(&[node]);
            pause(random, 300, 2_000);
        }
    } else if row == Row::K4 {
        for node in scene.all() {
            scene.stop(node);
            scene.start(&[node]);
            scene.wait_in_sync();
        }
        return "all nodes, one after the other".to_owned();
    } else if row == Row::S1 {
        scene.signal(node, "STOP");
        thread::sleep(Duration::from_secs(*random.pick(&[1, 5, 8])));
        scene.signal(node, "CONT");
    } else if row == Row::S2 {
        let next = (node + 1) % scene.nodes();
        [node, next].iter().for_each(|n| scene.signal(*n, "STOP"));
        pause(random, 4_000, 8_000);
        [node, next].iter().for_each(|n| scene.signal(*n, "CONT"));
        return format!("nodes {} and {}", node + 1, next + 1);
    } else {
        scene.kill(&[node]);
        pause(random, 0, 4_000);
        scene.start(&[node]);
    }
    format!("node {}", node + 1)
}

fn network(row: Row, scene: &mut Scene, random: &mut Random) -> String {
    let node = scene.victim(random);
    if row == Row::N1 {
        return cut(scene, random, node);
    }
    if row == Row::N2 {
        for _ in 0..8 {
            scene.network("cut", node, &[]);
            pause(random, 200, 300);
            scene.heal();
            pause(random, 200, 300);
        }
        return format!("node {}", node + 1);
    }
    if let Row::N3 | Row::N4 | Row::N5 = row {
        let late = [
            ("wire", "delay=50,jitter=50"),
            ("wire", "delay=200,jitter=100"),
        ];
        let unreliable = [
            ("lossy", "1"),
            ("lossy", "5"),
            ("lossy", "20"),
            ("wire", "delay=1,jitter=1,twice=10,early=25"),
            ("wire", "rot=0.5"),
        ];
        let (how, much) = if row == Row::N3 {
            *random.pick(&late)
        } else if row == Row::N4 {
            *random.pick(&unreliable)
        } else {
            ("narrow", "8000")
        };
        scene.weaken(how, node, much);
        pause(random, 4_000, 8_000);
        scene.heal();
        return format!("node {}: {how} {much}", node + 1);
    }
    if row == Row::N7 {
        return clog(scene, random);
    }
    for _ in 0..12 {
        let mut reset = Command::new("ss");
        let _same = reset.args(["-K", "dport", "=", ":9092"]);
        assert!(
            reset.output().is_ok_and(|o| o.status.success()),
            "ss resets connections"
        );
        pause(random, 200, 400);
    }
    "all clients over TCP".to_owned()
}

/// Nodes are clogged one after the other, and unclogged in another order (FoundationDB's swizzle-clogging).
fn clog(scene: &mut Scene, random: &mut Random) -> String {
    let first = random.below(scene.nodes() as u64) as usize;
    let second = (first + 1 + random.below(scene.nodes() as u64 - 1) as usize) % scene.nodes();
    scene.network("cut", first, &[]);
    pause(random, 500, 2_000);
    scene.network("cut", second, &[]);
    pause(random, 500, 3_000);
    // The script heals all at once: who stays cut off is cut off again.
    scene.heal();
    scene.network("cut", second, &[]);
    pause(random, 500, 2_000);
    scene.heal();
    format!("nodes {} and {}", first + 1, second + 1)
}

/// A clock jumps ahead or back and stays, or trembles.
fn clocks(scene: &mut Scene, random: &mut Random) -> String {
    let node = scene.victim(random);
    let set = |offset: &str| scene.clocks.set(node, offset).expect("the file is written");
    let how = *random.pick(&["+3600", "-7200", "+86400", "trembles"]);
    if how == "trembles" {
        for _ in 0..15 {
            set("+0.2");
            pause(random, 90, 110);
            set("-0.2");
            pause(random, 90, 110);
        }
        set("+0");
    } else {
        set(how);
        pause(random, 3_000, 6_000);
    }
    format!("node {}: {how}", node + 1)
}

fn limits(row: Row, scene: &mut Scene, random: &mut Random) -> String {
    let node = scene.victim(random);
    let pid = scene.cluster.nodes[node].pid();
    let limit = match row == Row::M1 {
        true => Limit::memory(pid, 256 << 20),
        false => Limit::cpu(pid, 10),
    };
    let limit = limit.expect("control groups (version 1)");
    pause(random, 5_000, 9_000);
    drop(limit);
    let mut what = format!("node {}", node + 1);
    if scene.cluster.nodes[node].has_ended() {
        scene.start(&[node]);
        what.push_str(", which was ended for it");
    }
    what
}

/// The #1808 scene of openraft: membership changes while somebody lags behind.
fn voters(scene: &mut Scene, random: &mut Random) -> String {
    let node = random.below(scene.nodes() as u64) as usize;
    let other = (node + 1) % scene.nodes();
    let number = (node + 1).to_string();
    scene.insist(other, &["cluster", "demote", &number]);
    let kills = random.percent(50);
    if kills {
        scene.kill(&[node]);
        pause(random, 0, 2_000);
        scene.start(&[node]);
    } else {
        scene.network("cut", node, &[]);
        pause(random, 1_000, 4_000);
        scene.heal();
    }
    scene.insist(other, &["cluster", "promote", &number]);
    let last = (node + 2) % scene.nodes();
    scene.kill(&[last]);
    pause(random, 0, 2_000);
    scene.start(&[last]);
    let how = if kills { "is killed" } else { "is cut off" };
    format!(
        "node {number} votes no more and {how}, votes again, and node {} is killed",
        last + 1
    )
}

fn disks(row: Row, scene: &mut Scene, random: &mut Random) -> String {
    let node = scene.victim(random);
    if row == Row::D1 {
        scene.power_loss(&[node]);
        pause(random, 0, 3_000);
        scene.start(&[node]);
    } else if row == Row::D2 {
        scene.power_loss(&scene.all());
        pause(random, 0, 2_000);
        scene.start(&scene.all());
        return all_nodes();
    } else if row == Row::D3 {
        let follower = (node + 1) % scene.nodes();
        scene.network("cut", follower, &[]);
        pause(random, 1_000, 2_500);
        scene.power_loss(&[node]);
        scene.heal();
        scene.start(&[node]);
        return format!(
            "node {} is cut off, then node {} has no power",
            follower + 1,
            node + 1
        );
    } else if row == Row::D5 {
        scene.disk(node).disk().fail_syncs(1);
        pause(random, 2_000, 4_000);
    } else if row == Row::D6 {
        let disk = scene.disk(node).disk();
        disk.set_capacity(disk.used_bytes() + random.below(200_000));
        pause(random, 5_000, 8_000);
        scene.disk(node).disk().set_capacity(u64::MAX);
    } else if row == Row::D7 {
        scene.disk(node).lag(random.between(200, 1_000));
        pause(random, 4_000, 8_000);
        scene.disk(node).lag(0);
    } else if row == Row::D9 {
        scene.wipe(node);
        scene.start(&[node]);
    } else if row == Row::D10 {
        let ago = Duration::from_millis(random.between(3_000, 8_000));
        scene.put_back_what_was(node, ago);
        scene.start(&[node]);
    } else {
        return rot(scene, random);
    }
    format!("node {}", node + 1)
}

fn cut(scene: &mut Scene, random: &mut Random, node: usize) -> String {
    let how = *random.pick(&["cut", "mute", "deafen", "pair"]);
    match how {
        "pair" => scene.network("cut", node, &[(node + 1) % scene.nodes()]),
        how => scene.network(how, node, &[]),
    }
    pause(random, 3_000, 8_000);
    scene.heal();
    format!("node {}: {how}", node + 1)
}

/// Changes a bit of a segment that holds the topic's records; the node starts again and looks at what it has.
fn rot(scene: &mut Scene, random: &mut Random) -> String {
    let node = scene.rotten(random);
    let mut segments = scene.disk(node).segments();
    segments.retain(|(path, size)| *size > 0 && path.to_string_lossy().contains(TOPIC));
    if segments.is_empty() {
        return "nothing is there yet".to_owned();
    }
    let (path, size) = random.pick(&segments).clone();
    let at = random.below(size);
    scene.disk(node).disk().rot(&path, at, 1 << random.below(8));
    scene.kill(&[node]);
    scene.start(&[node]);
    pause(random, 2_000, 4_000);
    format!("node {}: byte {at} of {}", node + 1, path.display())
}
