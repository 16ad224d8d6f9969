//! Forming a cluster by hand, and what is left when most voters are lost.

use std::path::PathBuf;

use callboard_broker::node::offline;
use clap::Args;

use crate::cli::output::{Failure, line, note};

/// See [`super::Cluster::Init`].
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The data directory; it is created.
    #[arg(long, value_name = "DIR", default_value = "./callboard-data")]
    data: PathBuf,
}

/// See [`super::Cluster::Recover`].
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The data directory of a voter that is left. Its node must be stopped.
    #[arg(long, value_name = "DIR", default_value = "./callboard-data")]
    data: PathBuf,
    /// Make this node wait to be taken in by the recovered one instead.
    #[arg(long)]
    rejoin: bool,
    /// Do it. Without this only what is there is shown.
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn init(init: &Init) -> Result<(), Failure> {
    offline::form(&init.data).map_err(Failure::new)?;
    note(format!(
        "{} forms a cluster of its own when it is started; other nodes join it if it is among their cluster.voters",
        init.data.display()
    ));
    Ok(())
}

pub(super) fn recover(recover: &Recover) -> Result<(), Failure> {
    let dir = recover.data.display();
    if recover.rejoin {
        if !recover.accept_loss {
            let found = offline::inspect(&recover.data).map_err(Failure::new)?;
            return line(format!(
                "{dir} would forget its metadata (term {}, {} entries) and keep its records; add --accept-loss to do it",
                found.last_term, found.last_index
            ));
        }
        offline::rejoin(&recover.data).map_err(Failure::new)?;
        note(format!(
            "{dir} waits to be taken in when it is started: the recovered node must be among its cluster.voters"
        ));
        return Ok(());
    }
    let found = match recover.accept_loss {
        true => offline::recover(&recover.data),
        false => offline::inspect(&recover.data),
    };
    let found = found.map_err(Failure::new)?;
    let voters: Vec<String> = found.voters.iter().map(ToString::to_string).collect();
    line(format!(
        "{dir} has {} entries of metadata, the last of term {}; voters are the nodes {}",
        found.last_index,
        found.last_term,
        voters.join(", ")
    ))?;
    if recover.accept_loss {
        note("this node votes alone now; start it, then, for every other node that is left:");
        note("  callboard cluster recover --rejoin --accept-loss --data DIR    and start it");
        note(
            "then let voters vote again with callboard cluster promote, and drain and remove the nodes that are lost",
        );
        return Ok(());
    }
    note(
        "Only when most voters are lost for good. What they alone had committed is lost: topics, settings, users,",
    );
    note(
        "who is in sync. Stop all nodes that are left, run this on each, and recover the one with the largest term,",
    );
    note(
        "then the most entries. Two recovered nodes are two clusters. To do it, add --accept-loss.",
    );
    Ok(())
}
