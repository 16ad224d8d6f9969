//! The one door to threads: workers that actors live on, and pools for work that blocks.
//!
//! A [`Runtime`] has two forms. The real one has an arbiter thread per worker and threads per pool. The
//! single-threaded one runs all of it on the caller's `LocalSet`, so that a whole node can run in
//! virtual time; there a job of a pool takes as long as its maker says.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads a [`Runtime`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Arbiters on which partitions and connections live.
    pub workers: usize,
    /// Threads that sync logs; syncs of different logs overlap well.
    pub sync_threads: usize,
    /// Threads that read what is not in memory, scan and recover logs.
    pub background_threads: usize,
    /// Whether there are other nodes, which have an arbiter of their own.
    pub peers: bool,
}

/// Workers and pools of one node; clones share them.
#[derive(Clone, Debug)]
pub struct Runtime {
    workers: Arc<[Worker]>,
    control: Worker,
    peers: Worker,
    sync: Pool,
    background: Pool,
    system: Option<actix_rt::System>,
    joins: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// One thread's event loop that actors live on.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
    arbiter: Option<actix_rt::ArbiterHandle>,
}

impl Worker {
    /// Position among the workers; the control worker counts as one more.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs `start` on this worker, where it may start actors and local tasks. Returns whether the worker lives.
    pub fn run(&self, start: impl FnOnce() + Send + 'static) -> bool {
        match &self.arbiter {
            Some(arbiter) => arbiter.spawn_fn(start),
            None => {
                drop(tokio::task::spawn_local(async move { start() }));
                true
            }
        }
    }
}

/// See [`pulse`].
const PULSE: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// Threads for work that blocks; a job that panics harms nobody else.
#[derive(Clone)]
pub struct Pool(Form);

#[derive(Clone)]
enum Form {
    Threads(Arc<Shared>),
    /// A task does them.
    Task(mpsc::UnboundedSender<Job>),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool whose jobs run one after another in a task of the caller's `LocalSet`, each when the time is over that `pace`
    /// says of it.
    fn single_threaded(mut pace: impl FnMut() -> Duration + 'static) -> Self {
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        drop(tokio::task::spawn_local(async move {
            while let Some(job) = waiting.recv().await {
                tokio::time::sleep(pace()).await;
                run(job);
            }
        }));
        Self(Form::Task(jobs))
    }

    fn start(name: &str, threads: usize, joins: &mut Vec<JoinHandle<()>>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        for i in 0..threads.max(1) {
            let shared = shared.clone();
            joins.push(
                thread::Builder::new()
                    .name(format!("callboard-{name}-{i}"))
                    .spawn(move || work(&shared))?,
            );
        }
        Ok(Self(Form::Threads(shared)))
    }

    /// Runs `job` on the pool; jobs begin in the order in which they came. After the runtime stopped it is dropped.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Form::Threads(shared) => {
                let mut queue = shared.queue.lock();
                if !queue.closed {
                    queue.jobs.push_back(Box::new(job));
                    let _woken: bool = shared.arrived.notify_one();
                }
            }
            Form::Task(jobs) => drop(jobs.send(Box::new(job))),
        }
    }

    /// Runs `job` on the pool and waits for what it returns; `None` if it panicked or the runtime stopped.
    ///
    /// # Cancel safety
    ///
    /// The job runs to its end although the future was dropped.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        // Who asked may be gone; the job ran all the same.
        self.run(move || drop(answer.send(job())));
        answered.await.ok()
    }

    fn close(&self) {
        if let Form::Threads(shared) = &self.0 {
            shared.queue.lock().closed = true;
            let _woken: usize = shared.arrived.notify_all();
        }
    }
}

/// Keeps a timer that is due soon on an arbiter.
///
/// Setting a timer that is due before all others wakes tokio's driver with a system call, and every request sets
/// some. With this one there, only timers shorter than a pulse cost that.
async fn pulse() {
    loop {
        tokio::time::sleep(PULSE).await;
    }
}

fn work(shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                shared.arrived.wait(&mut queue);
            }
        };
        run(job);
    }
}

fn run(job: Job) {
    // The panic hook has reported a panic; whoever waits for the job sees its answer dropped.
    drop(catch_unwind(AssertUnwindSafe(job)));
}

impl Runtime {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// What the operating system says when it starts no more threads.
    pub fn start(config: RuntimeConfig) -> io::Result<Self> {
        let mut joins = Vec::new();
        let sync = Pool::start("sync", config.sync_threads, &mut joins)?;
        let background = Pool::start("background", config.background_threads, &mut joins)?;
        let (started, starting) = std::sync::mpsc::channel();
        let arbiters = config.workers.max(1) + 1 + usize::from(config.peers);
        joins.push(
            thread::Builder::new()
                .name("callboard-system".into())
                .spawn(move || {
                    let runner = actix_rt::System::new();
                    let arbiters: Vec<_> =
                        (0..arbiters).map(|_| actix_rt::Arbiter::new()).collect();
                    let handles: Vec<_> = arbiters.iter().map(actix_rt::Arbiter::handle).collect();
                    for handle in &handles {
                        let _alive: bool = handle.spawn(pulse());
                    }
                    drop(started.send((actix_rt::System::current(), handles)));
                    drop(runner.run());
                    for arbiter in arbiters {
                        let _stopping: bool = arbiter.stop();
                        drop(arbiter.join());
                    }
                })?,
        );
        let (system, handles) = starting
            .recv()
            .map_err(|_| io::Error::other("the actor system did not start"))?;
        let mut workers: Vec<Worker> = handles
            .into_iter()
            .enumerate()
            .map(|(index, a)| Worker {
                index,
                arbiter: Some(a),
            })
            .collect();
        let mut last = || {
            let last = workers.pop();
            last.ok_or_else(|| io::Error::other("no arbiter started"))
        };
        let peers = config.peers.then(&mut last).transpose()?;
        let control = last()?;
        let peers = peers.unwrap_or_else(|| control.clone());
        let joins = Arc::new(Mutex::new(joins));
        Ok(Self {
            workers: workers.into(),
            control,
            peers,
            sync,
            background,
            system: Some(system),
            joins,
        })
    }

    /// The form that runs on the caller's `LocalSet` and ends with it. What both pools have to do is done in one order, each
    /// job when the time is over that `pace` says of it.
    #[must_use]
    pub fn single_threaded(pace: impl FnMut() -> Duration + 'static) -> Self {
        let pool = Pool::single_threaded(pace);
        Self {
            workers: [Worker {
                index: 0,
                arbiter: None,
            }]
            .into(),
            control: Worker {
                index: 1,
                arbiter: None,
            },
            peers: Worker {
                index: 2,
                arbiter: None,
            },
            sync: pool.clone(),
            background: pool,
            system: None,
            joins: Arc::default(),
        }
    }

    /// The workers, at least one.
    #[must_use]
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// The worker of a partition or connection with this hash.
    #[must_use]
    pub fn worker(&self, hash: u64) -> &Worker {
        &self.workers[(hash % self.workers.len() as u64) as usize]
    }

    /// The arbiter of the controller: no data is read or written on it.
    #[must_use]
    pub fn control(&self) -> &Worker {
        &self.control
    }

    /// The arbiter on which what comes from other nodes is read, and what goes to them is written; without other nodes
    /// that of the control.
    #[must_use]
    pub fn peers(&self) -> &Worker {
        &self.peers
    }

    /// The pool that syncs logs.
    #[must_use]
    pub fn sync(&self) -> &Pool {
        &self.sync
    }

    /// The pool that reads, scans and recovers.
    #[must_use]
    pub fn background(&self) -> &Pool {
        &self.background
    }

    /// Ends workers and pools after the jobs that wait, and joins their threads; call it from none of them.
    pub fn stop(&self) {
        if let Some(system) = &self.system {
            system.stop();
        }
        self.sync.close();
        self.background.close();
        for join in self.joins.lock().drain(..) {
            // A thread that panicked has been reported by the panic hook.
            drop(join.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_and_a_panic_harms_only_its_own() {
        let runtime = Runtime::start(RuntimeConfig {
            workers: 2,
            sync_threads: 1,
            background_threads: 1,
            peers: false,
        })
        .expect("threads");
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.sync().run(|| panic!("on purpose"));
        let pool_sender = sender.clone();
        runtime
            .sync()
            .run(move || pool_sender.send("pool").unwrap());
        assert_eq!(receiver.recv(), Ok("pool"));
        assert!(runtime.workers()[1].run(move || sender.send("worker").unwrap()));
        assert_eq!(receiver.recv(), Ok("worker"));
        runtime.stop();
    }
}
