//! A quorum that is lost for good: what one member has becomes the metadata of a quorum of one.
//!
//! Entries that only the lost members had are lost. Entries at the end of this log that were never committed take effect:
//! nobody can tell them from those that were.

use std::sync::Arc;

use callboard_common::{BrokerId, Uuid};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, EntryType, HardState};
use raft::{GetEntriesContext, Storage};

use super::image::{MetadataImage, Standing};
use super::log_file::Restored;
use super::quorum_storage::QuorumStorage;
use super::raft_wire::Quorum;
use super::records::{Member, bincode_config};
use super::state::{
    Persisted, QuorumChange, RestoreError, SavedImage, raft_id, replay, to_bytes, unusable,
};

/// What a data directory knows of its quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The term that it has seen.
    pub term: u64,
    /// Index of its last entry. Of several members, the one with the largest term of its last entry, then the largest
    /// index, has most.
    pub last_index: u64,
    /// The term of that entry.
    pub last_term: u64,
    /// Nodes that vote, as far as it knows.
    pub voters: Vec<BrokerId>,
    /// The metadata with all entries.
    pub image: MetadataImage,
}

/// Reads what is there, all entries applied.
///
/// # Errors
///
/// [`RestoreError`] if it does not fit together.
pub fn remains(restored: Restored) -> Result<Remains, RestoreError> {
    let image = restored.saved.as_ref().map(|s| s.image.clone());
    let mut image = image.map_or_else(MetadataImage::default, |image| (*image).clone());
    image.check_level().map_err(unusable)?;
    let first = image.applied + 1;
    let storage = QuorumStorage::new(restored.saved, &Quorum::default()).map_err(unusable)?;
    replay(&storage, image.applied, &restored.writes)?;
    let last_index = storage.last_index().map_err(unusable)?;
    let last_term = storage.term(last_index).map_err(unusable)?;
    let entries = match first > last_index {
        true => Vec::new(),
        false => {
            let context = GetEntriesContext::empty(false);
            let entries = storage.entries(first, last_index + 1, None, context);
            entries.map_err(unusable)?
        }
    };
    for entry in entries {
        match entry.get_entry_type() {
            EntryType::EntryNormal if !entry.data.is_empty() => {
                let decoded = bincode::decode_from_slice(&entry.data, bincode_config());
                let (command, _) = decoded.map_err(unusable)?;
                // What was refused then is refused now.
                let _outcome = image.apply(entry.index, command);
                image.check_level().map_err(unusable)?;
            }
            EntryType::EntryNormal => image.applied = entry.index,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                image.applied = entry.index;
                let _known = ConfChangeV2::parse_from_bytes(&entry.data).map_err(unusable)?;
                if let Ok((QuorumChange::Learn(id, member), _)) =
                    bincode::decode_from_slice(&entry.context, bincode_config())
                {
                    let _before = image.members.insert(id, member);
                }
            }
        }
    }
    let state = storage.initial_state().map_err(unusable)?;
    let voter = |id: &u64| image.members.get(id).map(|m| m.broker);
    let mut voters: Vec<BrokerId> = image.voters.iter().filter_map(voter).collect();
    voters.sort_unstable();
    Ok(Remains {
        term: state.hard_state.term.max(last_term),
        last_index,
        last_term,
        voters,
        image,
    })
}

/// The same metadata in a quorum of the member that has it.
///
/// # Errors
///
/// [`RestoreError`] if this directory is no member.
pub fn alone(remains: Remains, directory: &Uuid) -> Result<(SavedImage, Persisted), RestoreError> {
    let id = raft_id(directory);
    let mut image = remains.image;
    let me: Option<Member> = image.members.get(&id).cloned();
    let me = me.ok_or_else(|| unusable("this data directory was no member of the quorum"))?;
    // The lost ones are dead before this one starts anew: what was in sync with them is whole here, and led here.
    let others = image.brokers.iter().filter(|(b, _)| **b != me.broker);
    let others: Vec<(BrokerId, i64)> = others.map(|(b, node)| (*b, node.epoch)).collect();
    for (broker, epoch) in others {
        // One that had stopped stays so.
        let _silent = image.stand(broker, epoch, Standing::Silent);
    }
    image.members = [(id, me)].into();
    image.voters = [id].into();
    let saved = SavedImage {
        term: remains.last_term,
        quorum: Quorum {
            voters: vec![id],
            ..Quorum::default()
        },
        image: Arc::new(image),
    };
    // Nobody of the old quorum may be believed: its terms are behind.
    let state = HardState {
        term: remains.term + 1,
        commit: remains.last_index,
        ..HardState::default()
    };
    let hard_state = Some(to_bytes(&state));
    let rest = Persisted {
        hard_state,
        entries: Vec::new(),
    };
    Ok((saved, rest))
}
