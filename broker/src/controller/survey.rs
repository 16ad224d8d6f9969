//! Which feature levels the nodes speak: found out by talking to each of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use callboard_common::{BrokerId, FeatureLevel};
use futures::future::join_all;
use tokio::sync::oneshot;

use super::actor::ControllerActor;
use super::image::MetadataImage;
use super::records::Endpoint;
use crate::peer::link::Lane;
use crate::peer::protocol::{PeerRequest, PeerResponse};
use crate::peer::{Link, Peers};

/// A node that says nothing for so long is not known to speak anything.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks what the nodes speak.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DescribeFeatures {
    /// The highest level of this node, by which it judges the others.
    pub newest: FeatureLevel,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Features>,
}

/// What the nodes speak.
#[derive(Debug)]
pub struct Features {
    /// The metadata that was known before they were asked: who starts after that is not meant.
    pub image: Arc<MetadataImage>,
    /// The highest level that each node and this one speak; `None` if it did not answer.
    pub nodes: BTreeMap<BrokerId, Option<FeatureLevel>>,
}

/// Where all nodes are found that are registered, or members of the quorum.
fn everybody(image: &MetadataImage) -> BTreeMap<BrokerId, Option<Endpoint>> {
    let registered = image.brokers.iter().map(|(id, b)| {
        let at = b.endpoints.as_ref().and_then(|e| e.peer.clone());
        (*id, at)
    });
    let members = image
        .members
        .values()
        .map(|m| (m.broker, Some(m.peer.clone())));
    registered.chain(members).collect()
}

/// What both ends speak, if the process at the other end answers now.
async fn spoken(link: Link) -> Option<FeatureLevel> {
    let asking = async {
        match link.ask(Lane::Control, PeerRequest::Probe).await {
            Ok(PeerResponse::Probed { .. }) => Some(link.open().await.ok()?.level),
            Ok(_) | Err(_) => None,
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}

async fn survey(
    me: BrokerId,
    newest: FeatureLevel,
    image: Arc<MetadataImage>,
    peers: Option<Peers>,
) -> Features {
    let asking = everybody(&image).into_iter().map(|(broker, at)| {
        let link = peers
            .as_ref()
            .zip(at)
            .map(|(peers, at)| peers.link(broker, &at));
        async move {
            let level = match link {
                _ if broker == me => Some(newest),
                Some(link) => spoken(link).await,
                None => None,
            };
            (broker, level)
        }
    });
    let nodes = join_all(asking).await.into_iter().collect();
    Features { image, nodes }
}

impl Handler<DescribeFeatures> for ControllerActor {
    type Result = ();

    fn handle(&mut self, describe: DescribeFeatures, ctx: &mut Context<Self>) {
        let image = self.start.published.image.load_full();
        let peers = self.start.peers.as_ref().map(|(peers, _)| peers.clone());
        let (me, newest) = (self.start.identity.broker, describe.newest);
        let surveying = async move {
            let features = survey(me, newest, image, peers).await;
            // Who asked may have gone away.
            drop(describe.reply.send(features));
        };
        let _running = ctx.spawn(surveying.into_actor(self));
    }
}
