//! The log: slog to a terminal or as JSON, with what other crates log bridged in.
//!
//! A burst waits for its drain instead of losing records. Keys come from one list: `topic partition leader_epoch
//! offset broker group generation member actor error`, and what a line needs beyond them.

use serde::{Deserialize, Serialize};
use slog::{Drain, Level, Logger, o};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Terminal,
    /// One JSON object a line.
    Json,
}

/// Keeps the log alive; what was logged is written before it is gone.
#[must_use]
pub struct LogGuard {
    _drain: slog_async::AsyncGuard,
    _global: slog_scope::GlobalLoggerGuard,
}

impl std::fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogGuard").finish_non_exhaustive()
    }
}

/// Records that wait for the drain; beyond it whoever logs waits.
const CHANNEL_RECORDS: usize = 65_536;

fn drain(format: Format) -> Box<dyn Drain<Ok = (), Err = slog::Never> + Send> {
    match format {
        Format::Terminal => {
            let decorator = slog_term::TermDecorator::new().stderr().build();
            Box::new(
                slog_term::FullFormat::new(decorator)
                    .use_utc_timestamp()
                    .build()
                    .ignore_res(),
            )
        }
        Format::Json => Box::new(slog_json::Json::default(std::io::stderr()).ignore_res()),
    }
}

/// Starts the log of a process, on standard error, and makes it the target of the `log` crate.
pub fn start(format: Format, level: Level) -> (Logger, LogGuard) {
    let (asynchronous, guard) = slog_async::Async::new(drain(format))
        .chan_size(CHANNEL_RECORDS)
        .overflow_strategy(slog_async::OverflowStrategy::Block)
        .build_with_guard();
    // tracing's spans come through as records of their own and say nothing.
    let filtered = asynchronous.filter(move |record| {
        record.level().is_at_least(level) && !record.module().starts_with("tracing")
    });
    let logger = Logger::root(filtered.ignore_res(), o!());
    let global = slog_scope::set_global_logger(logger.clone());
    // A second logger in one process keeps the first bridge.
    let _bridged = slog_stdlog::init_with_level(log::Level::Info);
    (
        logger,
        LogGuard {
            _drain: guard,
            _global: global,
        },
    )
}

/// A log that goes nowhere: for nodes inside of programs that want none.
pub fn silent() -> Logger {
    Logger::root(slog::Discard, o!())
}
