//! Scenes of one partition's life, by the KIP that tells them.

use super::*;

const B1: BrokerId = BrokerId(1);
const B2: BrokerId = BrokerId(2);
const B3: BrokerId = BrokerId(3);

/// A partition on three nodes, and who of them is alive.
struct Scene {
    partition: PartitionImage,
    unfenced: BTreeSet<BrokerId>,
    min_isr: usize,
}

impl Scene {
    fn new(min_isr: usize) -> Self {
        let unfenced: BTreeSet<BrokerId> = [B1, B2, B3].into();
        let partition = PartitionImage::new(vec![B1, B2, B3], LeaderEpoch(0), &unfenced);
        Self {
            partition,
            unfenced,
            min_isr,
        }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut PartitionImage, Electorate<'_>) -> T) -> T {
        let (epoch, version) = (self.partition.epoch, self.partition.version);
        let of = Electorate {
            unfenced: &self.unfenced,
            min_isr: self.min_isr,
        };
        let result = act(&mut self.partition, of);
        let p = &self.partition;
        assert!(p.epoch >= epoch && p.version >= version, "{p:?}");
        assert!(p.leader.is_none_or(|l| p.isr.contains(&l)), "{p:?}");
        assert!(
            p.isr.iter().chain(&p.elr).all(|b| p.replicas.contains(b)),
            "{p:?}"
        );
        assert!(p.isr.iter().all(|b| !p.elr.contains(b)), "{p:?}");
        result
    }

    fn fence(&mut self, broker: BrokerId) {
        let _was: bool = self.unfenced.remove(&broker);
        let _changed: bool = self.act(|p, of| p.fence(broker, of));
    }

    fn unfence(&mut self, broker: BrokerId) {
        let _was: bool = self.unfenced.insert(broker);
        let _changed: bool = self.act(PartitionImage::elect);
    }

    fn alter(&mut self, isr: &[BrokerId]) -> Result<(), Refusal> {
        let (epoch, version) = (self.partition.epoch, self.partition.version);
        let by = self.partition.leader.expect("somebody leads");
        self.act(|p, of| p.alter_isr(by, epoch, version, isr.to_vec(), of))
    }
}

#[test]
fn a_fenced_leader_is_followed_by_one_that_is_in_sync() {
    let mut scene = Scene::new(2);
    scene.alter(&[B1, B3]).expect("the leader may");
    scene.fence(B1);
    assert_eq!(scene.partition.leader, Some(B3), "B2 was not in sync");
    assert_eq!(scene.partition.epoch, LeaderEpoch(1));
    assert_eq!(scene.partition.isr, [B3]);
    assert_eq!(
        scene.partition.elr,
        [B1],
        "one is too few: B1 lacks nothing"
    );
}

/// KIP-966: the last replica standing crashes without syncing; those who left before it lack nothing.
#[test]
fn kip_966_last_replica_standing() {
    let mut scene = Scene::new(2);
    scene.fence(B2);
    assert_eq!(scene.partition.elr, [], "two still acknowledge without B2");
    scene.fence(B3);
    assert_eq!(
        (&*scene.partition.isr, &*scene.partition.elr),
        (&[B1][..], &[B3][..])
    );
    scene.fence(B1);
    assert_eq!(scene.partition.leader, None);
    scene.unfence(B2);
    assert_eq!(
        scene.partition.leader, None,
        "B2 may lack what was acknowledged without it"
    );
    scene.unfence(B3);
    assert_eq!(scene.partition.leader, Some(B3), "B3 lacks nothing");
    assert_eq!(scene.partition.isr, [B3]);
}

/// KIP-966: a replica that comes back without its disk is not eligible.
#[test]
fn kip_966_a_wiped_disk_is_not_eligible() {
    let mut scene = Scene::new(2);
    scene.fence(B2);
    scene.fence(B3);
    scene.fence(B1);
    let _changed: bool = scene.act(|p, of| p.forget(B3, of));
    scene.unfence(B3);
    assert_eq!(scene.partition.leader, None);
    scene.unfence(B1);
    assert_eq!(scene.partition.leader, Some(B1));
}

/// KIP-966: who did not stop in order may lack something; one that comes later may not. Of several that did not, the last one
/// leads: nobody is left who could have more.
#[test]
fn kip_966_who_starts_uncleanly_is_eligible_only_as_the_last_one() {
    let mut scene = Scene::new(2);
    scene.fence(B3);
    scene.fence(B1);
    scene.fence(B2);
    assert_eq!(scene.partition.elr, [B1, B2]);
    assert!(scene.act(|p, of| p.doubt(B2, of)));
    scene.unfence(B2);
    assert_eq!(scene.partition.leader, None, "B1 may come back with more");
    scene.unfence(B3);
    assert_eq!(scene.partition.leader, None, "B3 was not in sync");
    assert!(!scene.act(|p, of| p.doubt(B1, of)), "it is the last one");
    scene.unfence(B1);
    assert_eq!(scene.partition.leader, Some(B1));
    assert_eq!(scene.partition.isr, [B1]);
}

/// KIP-966: one that led is followed by one that is whole, in a new reign.
#[test]
fn kip_966_who_leads_and_starts_uncleanly_is_followed_by_another() {
    let mut scene = Scene::new(2);
    assert!(scene.act(|p, of| p.doubt(B1, of)));
    assert_eq!(scene.partition.leader, Some(B2));
    assert_eq!(scene.partition.epoch, LeaderEpoch(1));
    assert_eq!(scene.partition.isr, [B2, B3]);
}

/// KIP-497: a leader that knows an older state changes nothing.
#[test]
fn kip_497_changes_compare_and_set() {
    let mut scene = Scene::new(1);
    let (epoch, version) = (scene.partition.epoch, scene.partition.version);
    scene.alter(&[B1, B2]).expect("the leader may");
    let late = scene.act(|p, of| p.alter_isr(B1, epoch, version, vec![B1], of));
    assert!(matches!(late, Err(Refusal::Outdated { .. })));
    let other = scene.act(|p, of| p.alter_isr(B2, epoch, version, vec![B2], of));
    assert_eq!(other, Err(Refusal::NotLeader(B2)));
    assert_eq!(
        scene.alter(&[B2]),
        Err(Refusal::Ineligible),
        "a leader stays in sync"
    );
    assert_eq!(scene.partition.isr, [B1, B2]);
}

/// KIP-841: a fenced replica is never in sync.
#[test]
fn kip_841_fenced_replicas_do_not_join() {
    let mut scene = Scene::new(1);
    scene.fence(B3);
    assert_eq!(scene.alter(&[B1, B2, B3]), Err(Refusal::Ineligible));
    scene.unfence(B3);
    scene.alter(&[B1, B2, B3]).expect("alive again");
}

/// KIP-455: a partition moves when all of its target are in sync, and not before.
#[test]
fn kip_455_a_move_ends_when_its_target_is_in_sync() {
    let mut scene = Scene::new(1);
    let b4 = BrokerId(4);
    let _was: bool = scene.unfenced.insert(b4);
    scene.act(|p, of| p.reassign(Some(vec![b4, B2]), of));
    assert_eq!(scene.partition.replicas, [b4, B2, B1, B3]);
    assert_eq!(scene.partition.leader, Some(B1));
    scene.alter(&[B1, B2, B3, b4]).expect("b4 has caught up");
    assert_eq!(scene.partition.replicas, [b4, B2]);
    assert_eq!(scene.partition.target, None);
    assert_eq!(scene.partition.leader, Some(b4));
}

#[test]
fn kip_455_a_move_is_given_up() {
    let mut scene = Scene::new(1);
    let b4 = BrokerId(4);
    let before = scene.partition.replicas.clone();
    scene.act(|p, of| p.reassign(Some(vec![b4]), of));
    assert_eq!(scene.partition.replicas, [b4, B1, B2, B3]);
    scene.act(|p, of| p.reassign(None, of));
    assert_eq!(
        (&scene.partition.replicas, &scene.partition.target),
        (&before, &None)
    );
    assert_eq!(scene.partition.leader, Some(B1));
}

/// Those that stay are no part of what was added: they stay when a move is given up too.
#[test]
fn kip_455_a_move_that_is_given_up_leaves_those_who_were_there() {
    let mut scene = Scene::new(1);
    let b4 = BrokerId(4);
    let _was: bool = scene.unfenced.insert(b4);
    scene.act(|p, of| p.reassign(Some(vec![B1, B2, b4]), of));
    assert_eq!(scene.partition.replicas, [B1, B2, b4, B3]);
    let moving = scene.partition.target.clone().expect("it moves");
    assert_eq!(moving.adding().collect::<Vec<_>>(), [b4]);
    assert_eq!(moving.removing().collect::<Vec<_>>(), [B3]);
    // Another target takes the place of the first.
    scene.act(|p, of| p.reassign(Some(vec![b4, B2]), of));
    assert_eq!(scene.partition.replicas, [b4, B2, B1, B3]);
    scene.act(|p, of| p.reassign(None, of));
    assert_eq!(scene.partition.replicas, [B1, B2, B3]);
    assert_eq!(scene.partition.isr, [B1, B2, B3]);
}

/// Who goes may be asked back before it has heard that it went: what it says until then is of another reign.
#[test]
fn a_replica_that_goes_ends_the_reign() {
    let mut scene = Scene::new(2);
    let b4 = BrokerId(4);
    let _was: bool = scene.unfenced.insert(b4);
    scene.act(|p, of| p.reassign(Some(vec![b4, B2, B1]), of));
    assert_eq!(scene.partition.epoch, LeaderEpoch(0), "nobody has gone");
    scene
        .alter(&[B1, B2, B3, b4])
        .expect("the new one has caught up");
    assert_eq!(scene.partition.replicas, [b4, B2, B1]);
    assert_eq!(scene.partition.leader, Some(B1), "the same one leads");
    assert_eq!(scene.partition.epoch, LeaderEpoch(1));
    scene.act(|p, of| p.reassign(Some(vec![B3, B2, B1]), of));
    assert_eq!(scene.partition.replicas, [B3, B2, B1, b4]);
    assert_eq!(scene.partition.epoch, LeaderEpoch(1));
    scene.act(|p, of| p.reassign(None, of));
    assert_eq!(scene.partition.epoch, LeaderEpoch(2), "one goes again");
}

/// A replica that is damaged counts no more, unless it is all there is.
#[test]
fn a_damaged_replica_leads_no_more_unless_it_is_the_last_that_is_whole() {
    let mut scene = Scene::new(2);
    scene.act(|p, of| p.lose(B1, of)).expect("others are whole");
    assert_eq!(scene.partition.leader, Some(B2));
    assert_eq!(scene.partition.isr, [B2, B3]);
    scene
        .act(|p, of| p.lose(B1, of))
        .expect("it does not count anyway");
    scene.fence(B3);
    assert_eq!(scene.act(|p, of| p.lose(B2, of)), Err(Refusal::Ineligible));
    assert_eq!(scene.partition.leader, Some(B2));
}

/// A full disk loses nothing: whoever had to step aside is what is left when the one that took over loses its disk.
#[test]
fn a_replica_without_space_steps_aside_and_stays_eligible() {
    let mut scene = Scene::new(2);
    scene.fence(B3);
    scene
        .act(|p, of| p.step_aside(B1, of))
        .expect("B2 is whole");
    assert_eq!(scene.partition.leader, Some(B2));
    assert_eq!(
        (&*scene.partition.isr, &*scene.partition.elr),
        (&[B2][..], &[B1][..])
    );
    let refused = scene.act(|p, of| {
        p.step_aside(
            B2,
            Electorate {
                unfenced: &[B2].into(),
                ..of
            },
        )
    });
    assert_eq!(refused, Err(Refusal::Ineligible), "nobody else is there");
    let _changed: bool = scene.act(|p, of| p.forget(B2, of));
    assert_eq!(scene.partition.leader, Some(B1), "it has everything");
}

#[test]
fn only_a_command_elects_uncleanly() {
    let mut scene = Scene::new(1);
    scene.alter(&[B1]).expect("the leader may");
    scene.fence(B1);
    assert_eq!(scene.partition.leader, None);
    assert!(scene.act(PartitionImage::elect_uncleanly));
    assert_eq!(
        (scene.partition.leader, &*scene.partition.isr),
        (Some(B2), &[B2][..])
    );
}

#[test]
fn the_preferred_replica_leads_again_when_it_is_in_sync() {
    let mut scene = Scene::new(1);
    scene.fence(B1);
    scene.unfence(B1);
    assert!(
        !scene.act(PartitionImage::elect_preferred),
        "it has not caught up"
    );
    scene.alter(&[B1, B2, B3]).expect("caught up");
    assert!(scene.act(PartitionImage::elect_preferred));
    assert_eq!(scene.partition.leader, Some(B1));
}

/// KIP-966: who is eligible lacks nothing because nothing is committed without it. When fewer are enough it is the leader that
/// says so, before it commits.
#[test]
fn kip_966_who_is_eligible_stays_so_until_the_leader_asks() {
    let mut scene = Scene::new(2);
    scene.alter(&[B1, B2]).expect("the leader may");
    scene.fence(B2);
    assert_eq!(scene.partition.elr, [B2]);
    scene.alter(&[B1]).expect("the leader may");
    assert_eq!(scene.partition.elr, [B2], "one is too few");
    scene.min_isr = 1;
    let version = scene.partition.version;
    scene.alter(&[B1]).expect("the leader may");
    assert!(scene.partition.elr.is_empty());
    assert_eq!(scene.partition.version, version + 1);
    scene.fence(B1);
    scene.unfence(B2);
    assert_eq!(scene.partition.leader, None, "B1 may have committed alone");
}

/// Who was eligible leads, alone, when one is enough: the others stay eligible, because it has not committed yet.
#[test]
fn kip_966_an_eligible_leader_forgets_nobody_by_being_elected() {
    let mut scene = Scene::new(2);
    scene.alter(&[B1, B2]).expect("the leader may");
    scene.fence(B1);
    scene.fence(B2);
    assert_eq!(scene.partition.elr, [B1, B2]);
    scene.min_isr = 1;
    scene.unfence(B2);
    let p = &scene.partition;
    assert_eq!(
        (p.leader, &*p.isr, &*p.elr),
        (Some(B2), &[B2][..], &[B1][..])
    );
    scene.fence(B2);
    scene.unfence(B1);
    let p = &scene.partition;
    assert_eq!(
        (p.leader, &*p.isr, &*p.elr),
        (Some(B1), &[B1][..], &[B2][..])
    );
}

/// A leader in doubt asks for nothing: whoever else is whole stays known, also when another one goes.
#[test]
fn kip_966_nobody_is_forgotten_when_another_one_goes() {
    let mut scene = Scene::new(3);
    scene.fence(B3);
    assert_eq!(scene.partition.elr, [B3]);
    scene.min_isr = 1;
    scene.fence(B2);
    assert_eq!(
        (&*scene.partition.isr, &*scene.partition.elr),
        (&[B1][..], &[B3, B2][..])
    );
    scene.alter(&[B1]).expect("the leader may");
    assert!(scene.partition.elr.is_empty());
}

/// Of two logs the shorter one may be all that there was: who gives way to the longer one leads again when that is lost.
#[test]
fn who_was_uncertain_leads_if_the_other_log_is_lost() {
    let mut scene = Scene::new(2);
    scene.alter(&[B1, B2]).expect("the leader may");
    scene.fence(B1);
    scene.unfence(B1);
    assert_eq!(
        (scene.partition.leader, &*scene.partition.elr),
        (Some(B2), &[B1][..])
    );
    scene
        .act(|p, of| p.step_aside(B2, of))
        .expect("B1 is eligible");
    assert_eq!(scene.partition.leader, Some(B1));
    let _changed: bool = scene.act(|p, of| p.forget(B1, of));
    assert_eq!(scene.partition.leader, Some(B2));
}
