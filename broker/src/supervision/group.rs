//! Children that belong together: what the failure of one means for the others.

use std::sync::Arc;

use actix::prelude::*;
use callboard_common::runtime::Worker;
use futures::channel::mpsc::UnboundedSender;
use parking_lot::Mutex;

use super::child::{Child, Order, start_with_orders};

/// Which siblings are restarted with a child that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// None.
    OneForOne,
    /// All.
    OneForAll,
    /// Those that were started after it.
    RestForOne,
}

impl Strategy {
    /// Whether sibling `other` is restarted when `failed` fails, both counted in start order.
    #[must_use]
    pub fn concerns(self, failed: usize, other: usize) -> bool {
        match self {
            Self::OneForOne => false,
            Self::OneForAll => other != failed,
            Self::RestForOne => other > failed,
        }
    }
}

/// Children in start order; stopped in reverse.
#[derive(Clone, Debug)]
pub struct Group {
    strategy: Strategy,
    orders: Arc<Mutex<Vec<UnboundedSender<Order>>>>,
}

impl Group {
    /// An empty group.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            orders: Arc::default(),
        }
    }

    /// Starts a child as the last of the group.
    pub fn start<A>(
        &self,
        worker: &Worker,
        mut child: Child,
        make: impl FnMut(&mut Context<A>) -> A + Send + 'static,
    ) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Supervised + Unpin,
    {
        let mut orders = self.orders.lock();
        let index = orders.len();
        let mut on_restart = child.on_restart;
        let group = self.clone();
        child.on_restart = Box::new(move || {
            on_restart();
            group.restart_siblings(index);
        });
        let (address, sender) = start_with_orders(worker, child, make);
        orders.push(sender);
        address
    }

    fn restart_siblings(&self, failed: usize) {
        for (other, orders) in self.orders.lock().iter().enumerate() {
            if self.strategy.concerns(failed, other) {
                // A sibling that has ended takes no orders.
                drop(orders.unbounded_send(Order::Restart));
            }
        }
    }

    /// Ends all children for good, the last one first.
    pub fn stop(&self) {
        for orders in self.orders.lock().drain(..).rev() {
            drop(orders.unbounded_send(Order::Stop));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_are_otps() {
        let concerned = |strategy: Strategy| {
            (0..4)
                .filter(|o| strategy.concerns(1, *o))
                .collect::<Vec<_>>()
        };
        assert_eq!(concerned(Strategy::OneForOne), [] as [usize; 0]);
        assert_eq!(concerned(Strategy::OneForAll), [0, 2, 3]);
        assert_eq!(concerned(Strategy::RestForOne), [2, 3]);
    }
}
