//! Supervision with real mailboxes and threads: what a panic costs, and what it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use actix::prelude::*;
use callboard_broker::supervision::{
    self, Child, Exit, Group, Restart, RestartLimit, Strategy, Watchdog, report_panics,
};
use callboard_common::Clock;
use callboard_common::runtime::{Runtime, RuntimeConfig, Worker};
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Act {
    Answer,
    PanicInHandler,
    PanicInResponse,
    PanicInSpawned,
    Fail,
    Finish,
    Block(Duration),
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Ask(Act, oneshot::Sender<usize>);

/// Counts its lives; its state is dropped and built anew by a restart.
#[derive(Debug)]
struct Shell {
    lives: Arc<AtomicUsize>,
    panic_in_start: Arc<AtomicUsize>,
    state: Option<usize>,
}

impl Actor for Shell {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Context<Self>) {
        let life = self.lives.fetch_add(1, Ordering::SeqCst) + 1;
        let panics = &self.panic_in_start;
        let must_panic = panics
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
        assert!(!must_panic, "in start-up, on purpose");
        self.state = Some(life);
    }
}

impl Supervised for Shell {
    fn restarting(&mut self, _ctx: &mut Context<Self>) {
        self.state = None;
    }
}

impl Handler<Ask> for Shell {
    type Result = ();

    fn handle(&mut self, Ask(act, reply): Ask, ctx: &mut Context<Self>) {
        let life = self.state.expect("built in start-up");
        match act {
            Act::Answer => reply.send(life).expect("the test listens"),
            Act::PanicInHandler => panic!("in a handler, on purpose"),
            Act::PanicInResponse => ctx.wait(
                async move {
                    let _reply = reply;
                    panic!("in a response, on purpose")
                }
                .into_actor(self),
            ),
            Act::PanicInSpawned => {
                let _sent = reply.send(life);
                let _task =
                    ctx.spawn(async { panic!("in a spawned future, on purpose") }.into_actor(self));
            }
            Act::Fail => supervision::fail(ctx),
            Act::Finish => supervision::finish(ctx),
            Act::Block(time) => {
                std::thread::sleep(time);
                let _sent = reply.send(life);
            }
        }
    }
}

struct Scene {
    runtime: Runtime,
    logger: slog::Logger,
}

struct Started {
    addr: Addr<Shell>,
    lives: Arc<AtomicUsize>,
    exits: mpsc::Receiver<Exit>,
}

impl Scene {
    fn new() -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        report_panics(logger.clone());
        let config = RuntimeConfig {
            workers: 2,
            sync_threads: 1,
            background_threads: 1,
            peers: false,
        };
        Self {
            runtime: Runtime::start(config).expect("threads"),
            logger,
        }
    }

    fn worker(&self) -> &Worker {
        &self.runtime.workers()[0]
    }

    fn child(&self, restart: Restart, limit: RestartLimit) -> (Child, mpsc::Receiver<Exit>) {
        let (exited, exits) = mpsc::channel();
        let child = Child {
            name: "shell".into(),
            restart,
            limit,
            clock: Clock::machine(),
            logger: self.logger.clone(),
            on_restart: Box::new(|| {}),
            on_exit: Box::new(move |exit| drop(exited.send(exit))),
        };
        (child, exits)
    }

    fn start_with(&self, restart: Restart, limit: RestartLimit, start_panics: usize) -> Started {
        let (child, exits) = self.child(restart, limit);
        let lives: Arc<AtomicUsize> = Arc::default();
        let panics = Arc::new(AtomicUsize::new(start_panics));
        let made = lives.clone();
        let addr = supervision::start(self.worker(), child, move |_| Shell {
            lives: made.clone(),
            panic_in_start: panics.clone(),
            state: None,
        });
        Started { addr, lives, exits }
    }

    fn start(&self) -> Started {
        self.start_with(Restart::Permanent, limit(3), 0)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.runtime.stop();
    }
}

fn limit(intensity: usize) -> RestartLimit {
    RestartLimit {
        intensity,
        first_delay: Duration::from_millis(1),
        ..RestartLimit::default()
    }
}

impl Started {
    fn ask(&self, act: Act) -> oneshot::Receiver<usize> {
        let (reply, answer) = oneshot::channel();
        supervision::tell(&self.addr, Ask(act, reply));
        answer
    }

    fn answer(&self) -> Option<usize> {
        wait(self.ask(Act::Answer))
    }
}

/// The answer, or `None` if it was dropped; hanging is the failure that must not be.
fn wait(answer: oneshot::Receiver<usize>) -> Option<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("nobody hangs")
            .ok()
    })
}

#[test]
fn a_panic_costs_one_answer_and_queued_messages_are_kept() {
    for (act, poisoned_answer) in [
        (Act::PanicInHandler, None),
        (Act::PanicInResponse, None),
        (Act::PanicInSpawned, Some(1)),
        (Act::Fail, None),
    ] {
        let scene = Scene::new();
        let started = scene.start();
        let neighbour = scene.start();
        assert_eq!(started.answer(), Some(1));
        // The actor is busy while the messages queue up behind the one that panics.
        let busy = started.ask(Act::Block(Duration::from_millis(50)));
        let poisoned = started.ask(act);
        let queued: Vec<_> = (0..5).map(|_| started.ask(Act::Answer)).collect();
        assert_eq!(wait(busy), Some(1));
        assert_eq!(wait(poisoned), poisoned_answer, "{act:?}");
        let answers: Vec<_> = queued.into_iter().map(wait).collect();
        // Messages that were handled before a spawned future got its turn saw the first life.
        assert!(answers.iter().all(Option::is_some), "{act:?}: {answers:?}");
        assert_eq!(
            started.answer(),
            Some(2),
            "same address, new state: {act:?}"
        );
        assert_eq!(neighbour.answer(), Some(1), "neighbours do not notice");
        assert_eq!(neighbour.lives.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_panic_in_start_up_is_retried() {
    let scene = Scene::new();
    let started = scene.start_with(Restart::Permanent, limit(3), 2);
    assert_eq!(started.answer(), Some(3));
}

#[test]
fn a_panic_in_the_factory_is_retried() {
    let scene = Scene::new();
    let (child, _exits) = scene.child(Restart::Permanent, limit(3));
    let mut attempts = 0;
    let lives: Arc<AtomicUsize> = Arc::default();
    let addr = supervision::start(scene.worker(), child, move |_| {
        attempts += 1;
        assert!(attempts > 2, "in the factory, on purpose");
        Shell {
            lives: lives.clone(),
            panic_in_start: Arc::default(),
            state: None,
        }
    });
    let (reply, answer) = oneshot::channel();
    supervision::tell(&addr, Ask(Act::Answer, reply));
    assert_eq!(wait(answer), Some(1));
}

#[test]
fn beyond_its_limit_a_child_gives_up_and_nobody_hangs() {
    let scene = Scene::new();
    let started = scene.start_with(Restart::Permanent, limit(2), 0);
    for _ in 0..3 {
        assert_eq!(wait(started.ask(Act::PanicInHandler)), None);
    }
    let exit = started.exits.recv_timeout(PATIENCE).expect("it escalates");
    assert_eq!(exit, Exit::GaveUp("in a handler, on purpose".into()));
    assert_eq!(started.answer(), None, "callers of the dead get an error");
}

#[test]
fn restarts_wait_longer_each_time() {
    let scene = Scene::new();
    let slow = RestartLimit {
        first_delay: Duration::from_millis(40),
        ..limit(3)
    };
    let clock = Clock::machine();
    let started = scene.start_with(Restart::Permanent, slow, 3);
    assert_eq!(started.answer(), Some(4));
    // 40, 80 and 160 ms; how much longer it took is the machine's affair.
    assert!(clock.now().monotonic.0 >= Duration::from_millis(270));
}

#[test]
fn transient_and_temporary_children_end_as_their_names_say() {
    let scene = Scene::new();
    let temporary = scene.start_with(Restart::Temporary, limit(3), 0);
    assert_eq!(wait(temporary.ask(Act::PanicInHandler)), None);
    assert!(matches!(
        temporary.exits.recv_timeout(PATIENCE),
        Ok(Exit::GaveUp(_))
    ));
    let transient = scene.start_with(Restart::Transient, limit(3), 0);
    assert_eq!(wait(transient.ask(Act::Fail)), None);
    assert_eq!(transient.answer(), Some(2));
    let permanent = scene.start();
    assert_eq!(wait(permanent.ask(Act::Finish)), None);
    assert_eq!(
        permanent.exits.recv_timeout(PATIENCE),
        Ok(Exit::Finished),
        "done is done"
    );
}

#[test]
fn siblings_restart_as_the_group_says() {
    for (strategy, lives_after) in [
        (Strategy::OneForOne, [1, 2, 1]),
        (Strategy::OneForAll, [2, 2, 2]),
        (Strategy::RestForOne, [1, 2, 2]),
    ] {
        let scene = Scene::new();
        let group = Group::new(strategy);
        let start = |_| {
            let (child, exits) = scene.child(Restart::Permanent, limit(3));
            let lives: Arc<AtomicUsize> = Arc::default();
            let made = lives.clone();
            let addr = group.start(scene.worker(), child, move |_| Shell {
                lives: made.clone(),
                panic_in_start: Arc::default(),
                state: None,
            });
            Started { addr, lives, exits }
        };
        let children = [0, 1, 2].map(start);
        children
            .iter()
            .for_each(|c| assert_eq!(c.answer(), Some(1)));
        assert_eq!(wait(children[1].ask(Act::PanicInHandler)), None);
        assert_eq!(children[1].answer(), Some(2));
        let lives = children.each_ref().map(|c| c.answer().expect("all live"));
        assert_eq!(lives, lives_after, "{strategy:?}");
        group.stop();
        children
            .iter()
            .for_each(|c| assert_eq!(c.exits.recv_timeout(PATIENCE), Ok(Exit::Finished)));
    }
}

#[test]
fn a_stuck_worker_is_noticed() {
    let scene = Scene::new();
    let started = scene.start();
    let (stuck, reports) = mpsc::channel();
    let workers = scene.runtime.workers().to_vec();
    let interval = Duration::from_millis(20);
    let watchdog = Watchdog::start(workers, interval, interval * 5, move |worker| {
        stuck.send(worker).expect("the test listens")
    });
    let watchdog = watchdog.expect("a thread");
    let blocked = started.ask(Act::Block(Duration::from_millis(1500)));
    assert_eq!(
        reports.recv_timeout(PATIENCE),
        Ok(0),
        "the worker that hangs, not its neighbour"
    );
    assert_eq!(wait(blocked), Some(1));
    drop(watchdog);
}
