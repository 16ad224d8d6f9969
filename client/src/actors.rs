//! The client as actix actors with typed messages, around the plain handles.
//!
//! ```
//! # use callboard_broker::Node;
//! use actix::Actor;
//! use callboard_client::actors::{ProducerActor, SendRecord};
//! use callboard_client::{Client, ClientConfig, Producer, ProducerConfig, Record, Trust};
//!
//! # actix_rt::System::new().block_on(async {
//! # let node = Node::builder().in_memory().start().await.expect("starts");
//! # let trust = Trust::Ca(node.ca_pem().to_owned());
//! let client = Client::connect(ClientConfig::new(node.quic(), trust)).await.expect("connects");
//! let producer = ProducerActor::new(Producer::new(&client, ProducerConfig::default())).start();
//! # #[allow(clippy::disallowed_methods)] {
//! let delivery = producer.send(SendRecord(Record::to("orders").value("one"))).await.expect("lives");
//! assert_eq!(delivery.expect("delivered").offset.get(), 0);
//! # }
//! # });
//! ```

use actix::prelude::*;
use callboard_common::TopicPartition;
use callboard_common::protocol::topics::CreatedTopic;

use crate::{Admin, Client, ConsumedRecord, Consumer, Delivery, Error, Producer, Record, StartAt};

/// Sends one record and answers when it is delivered.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Delivery, Error>")]
pub struct SendRecord(pub Record);

/// Delivers everything that was sent before.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Flush;

/// A producer as an actor.
#[derive(Debug)]
pub struct ProducerActor {
    producer: Producer,
}

impl ProducerActor {
    /// Around a producer.
    #[must_use]
    pub fn new(producer: Producer) -> Self {
        Self { producer }
    }
}

impl Actor for ProducerActor {
    type Context = Context<Self>;
}

impl Handler<SendRecord> for ProducerActor {
    type Result = ResponseFuture<Result<Delivery, Error>>;

    fn handle(&mut self, SendRecord(record): SendRecord, ctx: &mut Context<Self>) -> Self::Result {
        // Records are queued in the order of their messages; deliveries are waited for side by side.
        let producer = self.producer.clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        ctx.wait(
            async move { producer.enqueue(record).await }
                .into_actor(self)
                .map(|queued, actor, ctx| {
                    let deliver = async move {
                        let delivered = match queued {
                            Ok(delivery) => delivery.await,
                            Err(error) => Err(error),
                        };
                        drop(answer.send(delivered));
                    };
                    let _task = ctx.spawn(deliver.into_actor(actor));
                }),
        );
        Box::pin(async move { answered.await.unwrap_or(Err(Error::Closed)) })
    }
}

impl Handler<Flush> for ProducerActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, _: Flush, _ctx: &mut Context<Self>) -> Self::Result {
        let producer = self.producer.clone();
        Box::pin(async move { producer.flush().await })
    }
}

/// What a [`ConsumerActor`] sends to its recipient.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub enum Received {
    /// A record.
    Record(Box<ConsumedRecord>),
    /// The consumer has failed and ends.
    Failed(Error),
}

/// A consumer as an actor: sends each record to a recipient and waits until it was handled.
#[derive(Debug)]
pub struct ConsumerActor {
    task: Option<tokio::sync::mpsc::UnboundedSender<ConsumerOrder>>,
    consumer: Option<Consumer>,
    recipient: Recipient<Received>,
}

#[derive(Debug)]
enum ConsumerOrder {
    Commit(tokio::sync::oneshot::Sender<Result<(), Error>>),
    Seek(
        TopicPartition,
        StartAt,
        tokio::sync::oneshot::Sender<Result<(), Error>>,
    ),
}

/// Commits the offsets of all records that were handled.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Commit;

/// Reads a partition from another place.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Seek(pub TopicPartition, pub StartAt);

impl ConsumerActor {
    /// Around a consumer.
    #[must_use]
    pub fn new(consumer: Consumer, recipient: Recipient<Received>) -> Self {
        Self {
            task: None,
            consumer: Some(consumer),
            recipient,
        }
    }

    fn order(
        &self,
        make: impl FnOnce(tokio::sync::oneshot::Sender<Result<(), Error>>) -> ConsumerOrder,
    ) -> ResponseFuture<Result<(), Error>> {
        let (done, answered) = tokio::sync::oneshot::channel();
        let sent = self
            .task
            .as_ref()
            .is_some_and(|task| task.send(make(done)).is_ok());
        Box::pin(async move {
            if sent {
                answered.await.unwrap_or(Err(Error::Closed))
            } else {
                Err(Error::Closed)
            }
        })
    }
}

impl Actor for ConsumerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(mut consumer) = self.consumer.take() else {
            return;
        };
        let (orders, mut incoming) = tokio::sync::mpsc::unbounded_channel();
        self.task = Some(orders);
        let recipient = self.recipient.clone();
        let consuming = async move {
            loop {
                tokio::select! {
                    received = consumer.recv() => {
                        let failed = received.is_err();
                        let message = received.map_or_else(Received::Failed, |r| Received::Record(Box::new(r)));
                        if recipient.send(message).await.is_err() || failed {
                            return;
                        }
                    }
                    order = incoming.recv() => match order {
                        Some(ConsumerOrder::Commit(done)) => drop(done.send(consumer.commit().await)),
                        Some(ConsumerOrder::Seek(partition, to, done)) => {
                            drop(done.send(consumer.seek(&partition, to)));
                        }
                        None => return,
                    },
                }
            }
        };
        let _task = ctx.spawn(consuming.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<Commit> for ConsumerActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, _: Commit, _ctx: &mut Context<Self>) -> Self::Result {
        self.order(ConsumerOrder::Commit)
    }
}

impl Handler<Seek> for ConsumerActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, Seek(partition, to): Seek, _ctx: &mut Context<Self>) -> Self::Result {
        self.order(|done| ConsumerOrder::Seek(partition, to, done))
    }
}

/// Creates a topic.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<CreatedTopic, Error>")]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
}

/// Deletes a topic.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct DeleteTopic(pub String);

/// Administrative calls as an actor.
#[derive(Debug)]
pub struct AdminActor {
    admin: Admin,
}

impl AdminActor {
    /// For a client.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self {
            admin: client.admin(),
        }
    }
}

impl Actor for AdminActor {
    type Context = Context<Self>;
}

impl Handler<CreateTopic> for AdminActor {
    type Result = ResponseFuture<Result<CreatedTopic, Error>>;

    fn handle(&mut self, create: CreateTopic, _ctx: &mut Context<Self>) -> Self::Result {
        let admin = self.admin.clone();
        Box::pin(async move { admin.create_topic(&create.name, create.partitions).await })
    }
}

impl Handler<DeleteTopic> for AdminActor {
    type Result = ResponseFuture<Result<(), Error>>;

    fn handle(&mut self, DeleteTopic(name): DeleteTopic, _ctx: &mut Context<Self>) -> Self::Result {
        let admin = self.admin.clone();
        Box::pin(async move { admin.delete_topic(&name).await })
    }
}
