//! Bugs that are planted on purpose, to see whether the proof finds them. Without the feature `planted`, which no
//! release has, every question is answered `false` when this is compiled.

/// A mistake that somebody could make here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Followers count with what they have written, synced or not.
    AckBeforeFollowerSync = 1,
    /// The leader counts with what it has written, synced or not.
    AckBeforeOwnSync,
    /// A follower listens to the leader of any reign.
    SkippedEpochCheck,
    /// A follower whose log differs cuts it to its high watermark (before KIP-101).
    TruncateToHighWatermark,
    /// A leader does not notice that a follower's log differs.
    DivergenceUnnoticed,
    /// Who is in sync changes without compare-and-set.
    IsrWithoutCompare,
    /// Incarnations that are gone count (before KIP-903).
    StaleIncarnationCounts,
    /// Whoever lacks committed records comes back in sync.
    LaggardJoins,
    /// Records are committed below `min.insync.replicas` (before KIP-966).
    MinIsrIgnored,
    /// Any replica that is alive may lead.
    UncleanElection,
    /// A node that lost its disk still counts as in sync.
    WipedStaysInSync,
    /// A failed sync is tried again and believed.
    RetriedSync,
    /// Damage below the recovery point is cut off as if it were a torn end.
    DamageCutAsTail,
    /// What follows a bad batch above the recovery point is kept.
    TornEndSkipped,
    /// The directory of a log is not synced.
    DirectoryNotSynced,
    /// The recovery point is what was written.
    RecoveryPointTooHigh,
    /// Term and vote are not written.
    VoteNotPersisted,
    /// The metadata log is not synced.
    MetadataNotSynced,
    /// Producers are not rebuilt from the log.
    ProducersNotRebuilt,
    /// Sequence numbers are not looked at.
    SequencesIgnored,
    /// A leader that has not heard of the quorum for long serves on.
    StaleLeaderServes,
    /// A leader that starts again goes on in its old reign.
    SameReignAfterRestart,
    /// Records above the high watermark are served.
    ReadAboveHighWatermark,
    /// Segments go before the new start is durable.
    RemovedBeforeStart,
    /// Reigns of records that were cut are still known.
    EpochsNotCut,
    /// A coordinator takes over only what its leader knows to be committed.
    GroupsReplayedToHighWatermark,
    /// Readers are told that a reign ended at the high watermark.
    ReignEndsAtHighWatermark,
    /// Whoever is no member any more may still commit.
    GoneMemberCommits,
    /// Actors hear of a sync before it has run.
    SyncNotAwaited,
    /// A leader that starts again answers none of those who wait.
    AnswersForgotten,
    /// Actors that panic are not started again.
    PanickedStayDown,
    /// A lane's answers go out as they are ready.
    AnswersOutOfOrder,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::AckBeforeFollowerSync,
        Self::AckBeforeOwnSync,
        Self::SkippedEpochCheck,
        Self::TruncateToHighWatermark,
        Self::DivergenceUnnoticed,
        Self::IsrWithoutCompare,
        Self::StaleIncarnationCounts,
        Self::LaggardJoins,
        Self::MinIsrIgnored,
        Self::UncleanElection,
        Self::WipedStaysInSync,
        Self::RetriedSync,
        Self::DamageCutAsTail,
        Self::TornEndSkipped,
        Self::DirectoryNotSynced,
        Self::RecoveryPointTooHigh,
        Self::VoteNotPersisted,
        Self::MetadataNotSynced,
        Self::ProducersNotRebuilt,
        Self::SequencesIgnored,
        Self::StaleLeaderServes,
        Self::SameReignAfterRestart,
        Self::ReadAboveHighWatermark,
        Self::RemovedBeforeStart,
        Self::EpochsNotCut,
        Self::GroupsReplayedToHighWatermark,
        Self::ReignEndsAtHighWatermark,
        Self::GoneMemberCommits,
        Self::SyncNotAwaited,
        Self::AnswersForgotten,
        Self::PanickedStayDown,
        Self::AnswersOutOfOrder,
    ];

    /// Whether it is a mistake of the actors, which only whole nodes can make.
    #[must_use]
    pub fn is_of_actors(self) -> bool {
        self >= Self::SyncNotAwaited
    }
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Plants a bug in this process in place of the one before, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    let number = bug.map_or(0, |bug| bug as u32);
    PLANTED.store(number, std::sync::atomic::Ordering::Relaxed);
}

/// Whether this bug is planted.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u32
}

/// Whether this bug is planted: there are none.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
