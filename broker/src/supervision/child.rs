//! Runs one actor to its end, panics included.
//!
//! The child's future owns actix's `ContextFut` and polls it under `catch_unwind`. After a panic it calls
//! `ContextFut::restart`, which keeps the mailbox and the address: queued messages are handled by the restarted
//! actor, only the caller of the message that panicked sees its answer dropped.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as Cx, Poll};

use actix::dev::ContextFut;
use actix::dev::channel::channel;
use actix::prelude::*;
use callboard_common::runtime::Worker;
use callboard_common::time::{Clock, Sleep};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

use super::restart::{Restart, RestartLimit, Restarts, Verdict};
use crate::planted::{self, Bug};

/// Mailboxes are bounded by admission, not by this: `do_send` ignores it.
const MAILBOX_CAPACITY: usize = 16;

/// How a child ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done, or nobody could reach it any more.
    Finished,
    /// It failed and is not restarted; the text is its last panic or reason.
    GaveUp(String),
}

/// How a child is run.
pub struct Child {
    /// Names it in the log.
    pub name: String,
    /// After which exits it is restarted.
    pub restart: Restart,
    /// How often.
    pub limit: RestartLimit,
    /// Time for waits and limits.
    pub clock: Clock,
    /// Where restarts are reported.
    pub logger: slog::Logger,
    /// Called after each failure that is followed by a restart.
    pub on_restart: Box<dyn FnMut() + Send>,
    /// Called once when the child ended for good: here failures escalate.
    pub on_exit: Box<dyn FnOnce(Exit) + Send>,
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

/// What a supervisor asks of a running child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A sibling failed: start again without counting it.
    Restart,
    /// End for good.
    Stop,
}

/// Why the actor stopped itself; set while it is being polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Failed,
    Overtaken,
    Finished,
}

thread_local! {
    static REASON: Cell<Option<Reason>> = const { Cell::new(None) };
}

/// Ends the actor as failed: it counts against the restart limit and starts again from what it persisted.
pub fn fail<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>) {
    REASON.set(Some(Reason::Failed));
    ctx.stop();
}

/// Starts the actor again from what it persisted, because what it stood on has changed: that is no failure and is not counted.
/// Whoever may call this without end is bounded by what changes.
pub fn begin_again<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>) {
    REASON.set(Some(Reason::Overtaken));
    ctx.stop();
}

/// Ends the actor for good, without a restart.
pub fn finish<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>) {
    REASON.set(Some(Reason::Finished));
    ctx.stop();
}

/// Starts an actor on a worker under supervision. `make` makes the shell; it is called again only if it panics.
pub fn start<A>(
    worker: &Worker,
    child: Child,
    make: impl FnMut(&mut Context<A>) -> A + Send + 'static,
) -> Addr<A>
where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
{
    start_with_orders(worker, child, make).0
}

/// As [`start`], with the way to give orders.
pub(super) fn start_with_orders<A>(
    worker: &Worker,
    child: Child,
    make: impl FnMut(&mut Context<A>) -> A + Send + 'static,
) -> (Addr<A>, UnboundedSender<Order>)
where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
{
    let (sender, receiver) = channel(MAILBOX_CAPACITY);
    let (orders, incoming) = unbounded();
    let address = Addr::new(sender);
    // A worker that has ended drops the closure and with it the mailbox: callers see their answers dropped.
    let _alive: bool = worker.run(move || {
        let restarts = Restarts::new(child.limit);
        let context = Some(Context::with_receiver(receiver));
        let run = Run {
            child: Some(child),
            restarts,
            make,
            context,
            actor: None,
            wait: None,
            orders: incoming,
        };
        drop(actix_rt::spawn(run));
    });
    (address, orders)
}

/// The future that runs an actor.
type Running<A> = Pin<Box<ContextFut<A, Context<A>>>>;

struct Run<A: Actor<Context = Context<A>>, F> {
    /// Taken when the child has ended.
    child: Option<Child>,
    restarts: Restarts,
    make: F,
    /// Mailbox and address, until the actor is made.
    context: Option<Context<A>>,
    actor: Option<Running<A>>,
    wait: Option<Sleep>,
    orders: UnboundedReceiver<Order>,
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|t| (*t).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

/// How one life of the actor ended.
enum Ended {
    Failed(String),
    /// By what it stood on: it begins again.
    Overtaken,
    Finished,
    /// Without a word: its addresses are gone or it stopped its context itself.
    Stopped,
}

impl<A, F> Run<A, F>
where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
    F: FnMut(&mut Context<A>) -> A,
{
    /// Makes the actor if need be and polls it.
    fn live(&mut self, cx: &mut Cx<'_>) -> Poll<Ended> {
        REASON.set(None);
        if self.actor.is_none() {
            let Some(mut context) = self.context.take() else {
                return Poll::Ready(Ended::Finished);
            };
            match catch_unwind(AssertUnwindSafe(|| (self.make)(&mut context))) {
                Ok(actor) => self.actor = Some(Box::pin(context.into_future(actor))),
                Err(panic) => {
                    self.context = Some(context);
                    return Poll::Ready(Ended::Failed(panic_text(&*panic)));
                }
            }
        }
        let Some(actor) = &mut self.actor else {
            return Poll::Ready(Ended::Finished);
        };
        match catch_unwind(AssertUnwindSafe(|| actor.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(match REASON.take() {
                Some(Reason::Failed) => Ended::Failed("it reported a failure".into()),
                Some(Reason::Overtaken) => Ended::Overtaken,
                Some(Reason::Finished) => Ended::Finished,
                None => Ended::Stopped,
            }),
            Err(panic) => Poll::Ready(Ended::Failed(panic_text(&*panic))),
        }
    }

    /// Puts the actor back to its beginning; whether that was possible.
    fn revive(&mut self) -> bool {
        // One that was never made is made anew.
        let Some(actor) = &mut self.actor else {
            return self.context.is_some();
        };
        // `restarting` drops the state; also a panic in there must not end the worker.
        catch_unwind(AssertUnwindSafe(|| actor.restart())).unwrap_or(false)
    }

    fn end(&mut self, exit: Exit) -> Poll<()> {
        // Dropping the context calls `stopping` and `stopped`.
        let actor = self.actor.take();
        drop(catch_unwind(AssertUnwindSafe(move || drop(actor))));
        if let Some(child) = self.child.take() {
            if let Exit::GaveUp(reason) = &exit {
                slog::error!(child.logger, "actor gives up"; "actor" => &child.name, "error" => reason);
            }
            (child.on_exit)(exit);
        }
        Poll::Ready(())
    }

    /// Decides about an exit: `None` goes on living.
    fn after(&mut self, ended: Ended) -> Option<Exit> {
        let child = self.child.as_mut()?;
        let (is_failure, reason) = match ended {
            Ended::Finished => return Some(Exit::Finished),
            Ended::Overtaken => return (!self.revive()).then_some(Exit::Finished),
            Ended::Stopped => (false, "it stopped".to_owned()),
            Ended::Failed(_) if planted::is(Bug::PanickedStayDown) => return Some(Exit::Finished),
            Ended::Failed(reason) => (true, reason),
        };
        match child.restart {
            Restart::Temporary if is_failure => return Some(Exit::GaveUp(reason)),
            Restart::Temporary => return Some(Exit::Finished),
            Restart::Transient if !is_failure => return Some(Exit::Finished),
            Restart::Transient | Restart::Permanent => {}
        }
        let Verdict::RestartAfter(delay) = self.restarts.failed(child.clock.now().monotonic) else {
            return Some(Exit::GaveUp(reason));
        };
        let wait = child.clock.sleep(delay);
        let (logger, name) = (child.logger.clone(), child.name.clone());
        if !self.revive() {
            // Nobody holds an address any more, or the actor cannot be put back.
            return Some(if is_failure {
                Exit::GaveUp(reason)
            } else {
                Exit::Finished
            });
        }
        slog::warn!(logger, "actor restarts"; "actor" => name, "error" => reason, "delay_ms" => delay.as_millis());
        if let Some(child) = &mut self.child {
            (child.on_restart)();
        }
        self.wait = Some(wait);
        None
    }
}

impl<A, F> Future for Run<A, F>
where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
    F: FnMut(&mut Context<A>) -> A,
    Self: Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match this.orders.poll_next_unpin(cx) {
                Poll::Ready(Some(Order::Stop)) => return this.end(Exit::Finished),
                Poll::Ready(Some(Order::Restart)) if !this.revive() => {
                    return this.end(Exit::Finished);
                }
                Poll::Ready(Some(Order::Restart)) => continue,
                // Without a supervisor there are no orders.
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(wait) = &mut this.wait {
                if Pin::new(wait).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.wait = None;
            }
            let Poll::Ready(ended) = this.live(cx) else {
                return Poll::Pending;
            };
            if let Some(exit) = this.after(ended) {
                return this.end(exit);
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>, F> Unpin for Run<A, F> {}
