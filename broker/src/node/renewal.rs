//! A data directory that is older than what its node has acknowledged goes on as another member of the quorum, as if its disk had
//! been lost: the records that it keeps stay, and what is missing of them is fetched.
//!
//! The node that finds out notes it and ends. Started again, it first has the quorum leave out the member that it was: whatever
//! it was told, it forgets nothing before the others have agreed to do without it. If they cannot, because without it there is no
//! quorum, it goes on as it was; then somebody else leads sooner or later, who sends it what it lacks.

use std::time::Duration;

use callboard_common::Uuid;
use slog::{error, warn};
use tokio::sync::watch;

use super::Shared;
use super::builder::StartError;
use super::cluster::{FORMS, JOINS, Membership};
use super::prepare::Starting;
use crate::controller::actor::Published;
use crate::controller::{Identity, log_file, raft_id};
use crate::storage::StorageError;
use crate::storage::disk::replace_whole;

/// The mark of a data directory that is to go on as another member.
const OUTDATED: &str = "metadata.outdated";
/// The others are there, or nobody would have said what a node has acknowledged; if they cannot do without it, waiting does not help.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether the quorum still knows this member.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Why a node ends that has found out; started again, it goes on.
pub const OUTDATED_REASON: &str = "the data directory is older than what this node has acknowledged (was a copy put back?): started again, it goes on as a new member and fetches what it lacks";

/// Waits until a node that has not started never will; why.
pub(super) async fn ended(fatal: &mut watch::Receiver<Option<String>>) -> StartError {
    match fatal.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(reason)) if reason == OUTDATED_REASON => StartError::Outdated,
        Ok(_) | Err(_) => StartError::Metadata,
    }
}

/// Notes that the data directory is outdated when the controller finds out, and ends the node.
pub(super) fn watch_for_it(
    shared: &Shared,
    published: &Published,
    fatal: watch::Sender<Option<String>>,
) {
    let (shared, mut outdated) = (shared.clone(), published.outdated.subscribe());
    let control = shared.runtime.control().clone();
    let noting = async move {
        if outdated.wait_for(|outdated| *outdated).await.is_err() {
            return;
        }
        let (disk, mark) = (shared.open.disk().clone(), shared.dir.join(OUTDATED));
        let pool = shared.runtime.background();
        let noted = pool.ask(move || replace_whole(&*disk, &mark, b"")).await;
        let reason = match noted {
            Some(Ok(())) => OUTDATED_REASON.to_owned(),
            Some(Err(error)) => {
                format!("that the data directory is outdated cannot be noted: {error}")
            }
            None => "noting that the data directory is outdated panicked".to_owned(),
        };
        error!(shared.logger, "the node cannot go on"; "reason" => &reason);
        let _before = fatal.send_replace(Some(reason));
    };
    let _alive: bool = control.run(move || drop(actix_rt::spawn(noting)));
}

/// Looks now and then, until this start is registered and while nobody leads this member, whether the quorum knows it at all: if
/// not, its directory is from the time before it was left out, and nobody will ever speak to it.
pub(super) async fn look_whether_left_out(
    membership: Membership,
    (identity, incarnation): (Identity, Uuid),
    published: Published,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let image = published.image.load_full();
        let own = image.brokers.get(&identity.broker);
        if own.is_some_and(|b| b.incarnation == incarnation) {
            return;
        }
        let is_led = published.led.borrow().leader.is_some();
        let believes = image.members.contains_key(&identity.raft_id());
        if !is_led && believes && membership.is_left_out(identity, image.applied).await {
            let _before = published.outdated.send_replace(true);
            return;
        }
    }
}

impl Starting {
    /// Makes another member of an outdated data directory, once the quorum does without the one that it was.
    pub(super) async fn renew(
        &mut self,
        membership: Option<&Membership>,
    ) -> Result<(), StartError> {
        let (disk, dir) = (self.shared.open.disk().clone(), self.shared.dir.clone());
        let names = disk.list(&dir).map_err(StorageError::io("listing", &dir))?;
        let Some(membership) = membership.filter(|_| names.iter().any(|n| n == OUTDATED)) else {
            return Ok(());
        };
        let (was, mark) = (raft_id(&self.meta.directory_id), dir.join(OUTDATED));
        let leaving = membership.have_left_out(self.shared.broker, was);
        if tokio::time::timeout(PATIENCE, leaving).await.is_err() {
            warn!(
                self.shared.logger,
                "the quorum does not leave out the member that this directory was: it goes on as it was"
            );
            disk.remove(&mark)
                .map_err(StorageError::io("removing", &mark))?;
            return Ok(());
        }
        // Whatever is done of this when the power goes is done once more; without metadata it must not form a cluster.
        let joins = dir.join(JOINS);
        replace_whole(&*disk, &joins, b"").map_err(StorageError::io("writing", &joins))?;
        log_file::forget(&*disk, &dir)?;
        self.meta.directory_id = Uuid::random();
        self.meta.write(&*disk, &dir)?;
        for name in [FORMS, OUTDATED] {
            let path = dir.join(name);
            disk.remove(&path)
                .map_err(StorageError::io("removing", &path))?;
        }
        disk.sync_dir(&dir)
            .map_err(StorageError::io("syncing", &dir))?;
        warn!(self.shared.logger, "the data directory was older than what this node has acknowledged: it goes on as a new member";
            "was" => was, "is" => raft_id(&self.meta.directory_id));
        Ok(())
    }
}
