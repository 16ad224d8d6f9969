//! The feature level that the cluster is at: raised on command, when all nodes are known to speak it; pure.
//!
//! Sources: KIP-584 (feature versions), KIP-778 (`metadata.version`).

use std::collections::{BTreeMap, BTreeSet};

use callboard_common::{BrokerId, FeatureLevel};

use super::image::MetadataImage;
use super::records::{Command, Outcome, Refusal};

/// Why metadata of another release is not used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum OtherRelease {
    #[error("it is at feature level {0} and this release speaks {newest} at most: start a newer release", newest = FeatureLevel::NEWEST)]
    Newer(FeatureLevel),
    #[error("it is at feature level {0} and this release speaks {lowest} at least: upgrade with the release before this one first", lowest = FeatureLevel::LOWEST)]
    Older(FeatureLevel),
}

impl MetadataImage {
    /// Whether this release knows all that may be in here.
    pub(super) fn is_known(&self) -> bool {
        self.check_level().is_ok()
    }

    pub(super) fn check_level(&self) -> Result<(), OtherRelease> {
        match self.level.0 {
            newer if newer > FeatureLevel::NEWEST => Err(OtherRelease::Newer(newer)),
            older if older < FeatureLevel::LOWEST && self.applied > 0 => {
                Err(OtherRelease::Older(older))
            }
            _ => Ok(()),
        }
    }

    /// The change to `level` if everybody who is known here speaks it.
    #[must_use]
    pub fn raise_to(&self, level: FeatureLevel) -> Command {
        let brokers = self.brokers.iter().map(|(id, b)| (*id, b.epoch));
        Command::SetFeatureLevel {
            level,
            brokers: brokers.collect(),
            members: self.members.keys().copied().collect(),
        }
    }

    pub(super) fn set_level(
        &mut self,
        level: FeatureLevel,
        brokers: &BTreeMap<BrokerId, i64>,
        members: &BTreeSet<u64>,
    ) -> Result<Outcome, Refusal> {
        let now = self.level.0;
        if level < now {
            let why =
                format!("the cluster is at feature level {now} and does not go back to {level}");
            return Err(Refusal::Features(why));
        }
        // Who has started since then may be of another release.
        let started = self
            .brokers
            .iter()
            .find(|(id, b)| brokers.get(id) != Some(&b.epoch));
        let joined = self.members.iter().find(|(id, _)| !members.contains(id));
        let other = started.map(|(id, _)| *id).or(joined.map(|(_, m)| m.broker));
        if let Some(broker) = other {
            let why = format!("node {broker} has started meanwhile: try again");
            return Err(Refusal::Features(why));
        }
        self.level.0 = level;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::state::{
        Controller, Effect, Effects, Identity, Input, Proposal, Ticket,
    };
    use callboard_common::{Monotonic, Now, Timestamp, Uuid};

    fn start(image: &mut MetadataImage, index: u64, broker: i32) {
        let register = Command::RegisterBroker {
            broker: BrokerId(broker),
            directory: Uuid::ZERO,
            incarnation: Uuid([index as u8; 16]),
        };
        let _registered = image.apply(index, register).expect("registered");
    }

    #[test]
    fn a_level_is_raised_when_all_who_are_there_were_asked() {
        let mut image = MetadataImage::default();
        assert_eq!(image.level.0, FeatureLevel::LOWEST);
        start(&mut image, 1, 1);
        start(&mut image, 2, 2);
        let raise = image.raise_to(FeatureLevel(4));
        // One of them has started anew, perhaps with an older release.
        start(&mut image, 3, 2);
        assert!(matches!(image.apply(4, raise), Err(Refusal::Features(_))));
        assert_eq!(image.level.0, FeatureLevel::LOWEST);
        let raise = image.raise_to(FeatureLevel(4));
        // A third one has come.
        start(&mut image, 5, 3);
        assert!(matches!(image.apply(6, raise), Err(Refusal::Features(_))));
        let raise = image.raise_to(FeatureLevel(4));
        assert_eq!(image.apply(7, raise.clone()), Ok(Outcome::Done));
        assert_eq!(image.level.0, FeatureLevel(4));
        // Twice is once, and back is not possible.
        assert_eq!(image.apply(8, raise), Ok(Outcome::Done));
        let lower = image.raise_to(FeatureLevel(3));
        assert!(matches!(image.apply(9, lower), Err(Refusal::Features(_))));
        assert_eq!(image.level.0, FeatureLevel(4));
    }

    const NOW: Now = Now {
        wall: Timestamp(0),
        monotonic: Monotonic(std::time::Duration::ZERO),
    };

    /// A controller that votes alone, and what it has done until nothing more happens.
    fn settle(controller: &mut Controller, mut out: Effects) -> Vec<Effect> {
        let mut done = Vec::new();
        while let Some(effect) = out.pop_front() {
            if let Effect::Persist(number, _) = &effect {
                controller.step(NOW, Input::Persisted(*number), &mut out);
            }
            done.push(effect);
        }
        done
    }

    #[test]
    fn who_does_not_know_a_level_stops_where_it_begins() {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let (mut out, directory) = (Effects::new(), Uuid([7; 16]));
        let me = Identity {
            broker: BrokerId(1),
            directory,
            joins: false,
        };
        let restored = Controller::restore(&logger, me, NOW, None, &[], &mut out);
        let mut controller = restored.expect("it is empty");
        let _led = settle(&mut controller, out);
        let newer = FeatureLevel(FeatureLevel::NEWEST.0 + 1);
        let command = controller.image().raise_to(newer);
        let propose = |command| Input::Propose(Ticket(1), Proposal::Command(command));
        let mut out = Effects::new();
        controller.step(NOW, propose(command), &mut out);
        let done = settle(&mut controller, out);
        assert!(
            done.iter().any(|e| matches!(e, Effect::TooNew(_))),
            "{done:?}"
        );
        assert!(
            !done.iter().any(|e| matches!(e, Effect::Answer(..))),
            "{done:?}"
        );
        let mut out = Effects::new();
        controller.step(
            NOW,
            propose(Command::DeleteTopic { id: Uuid::ZERO }),
            &mut out,
        );
        assert_eq!(out, Effects::new(), "nothing happens any more");
    }

    #[test]
    fn an_image_of_a_newer_level_is_not_used() {
        let mut image = MetadataImage::default();
        image.level.0 = FeatureLevel(FeatureLevel::NEWEST.0 + 1);
        let saved = crate::controller::SavedImage {
            term: 1,
            quorum: crate::controller::raft_wire::Quorum::default(),
            image: std::sync::Arc::new(image),
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let me = Identity {
            broker: BrokerId(1),
            directory: Uuid([7; 16]),
            joins: false,
        };
        let restored = Controller::restore(&logger, me, NOW, Some(saved), &[], &mut Effects::new());
        let error = restored.expect_err("it is newer").to_string();
        assert!(error.contains("start a newer release"), "{error}");
    }

    #[test]
    fn a_level_waits_for_members_that_are_not_registered() {
        let mut image = MetadataImage::default();
        start(&mut image, 1, 1);
        let raise = image.raise_to(FeatureLevel(4));
        let member = super::super::Member {
            broker: BrokerId(9),
            directory: Uuid::ZERO,
            peer: super::super::Endpoint {
                host: "localhost".into(),
                port: 1,
            },
        };
        let _before = image.members.insert(77, member);
        assert!(matches!(image.apply(2, raise), Err(Refusal::Features(_))));
        let raise = image.raise_to(FeatureLevel(4));
        assert_eq!(image.apply(3, raise), Ok(Outcome::Done));
    }
}
