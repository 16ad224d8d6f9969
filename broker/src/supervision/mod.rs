//! Actors that fail are started anew from what they persisted; the rest of the node does not notice.
//!
//! actix does not supervise panics and does not bound mailboxes (measured: docs/ARCHITECTURE.md), so this small
//! layer does. The words are OTP's: a *child* runs until its *exit*; a *permanent* child is restarted whatever
//! its exit was, a *transient* one after a failure, a *temporary* one never; with more restarts than its *limit*
//! allows it gives up and the failure *escalates* to who started it.
//!
//! Rules for actors under supervision:
//! - the actor is a shell that holds its state in an `Option`; `restarting` only drops it, and what the state
//!   owes to callers is answered as it falls;
//! - `stopping`, `stopped` and `Drop` never panic: a panic while unwinding ends the process;
//! - messages go out by [`tell`] and carry the permit of their admission and the oneshot of their answer, so a
//!   message that is dropped answers its caller.
//!
//! Sources: Armstrong, "Making reliable distributed systems in the presence of software errors" (2003); OTP's
//! supervisor behaviour.

mod child;
mod group;
mod permit;
mod restart;
mod watchdog;

pub use child::{Child, Exit, begin_again, fail, finish, start};
pub use group::{Group, Strategy};
pub use permit::Permit;
pub use restart::{Restart, RestartLimit, Restarts, Verdict};
pub use watchdog::Watchdog;

use actix::dev::{MessageResponse, ToEnvelope};
use actix::{Actor, Addr, Handler, Message};

/// Sends a message: the one place that does. It is never refused and never undone by a caller who goes away; an
/// actor that has ended drops it.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub fn tell<A, M>(actor: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    M: Message + Send + 'static,
    M::Result: MessageResponse<A, M> + Send,
    A::Context: ToEnvelope<A, M>,
{
    actor.do_send(message);
}

/// Reports panics to the log before anything unwinds, so that none is lost.
pub fn report_panics(logger: slog::Logger) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic
            .payload_as_str()
            .unwrap_or("a panic without a message");
        let thread = std::thread::current()
            .name()
            .unwrap_or("unnamed")
            .to_owned();
        slog::error!(logger, "panic: {message}"; "place" => place, "thread" => thread);
    }));
}
