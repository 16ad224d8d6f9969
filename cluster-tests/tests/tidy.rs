//! The rules of the house, as a test: who imports whom, module headers, sizes, nothing left undone.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code of one file, tests at its bottom not counted.
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every source file by its path from the root, with its text.
fn all() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    for member in ["common", "broker", "client", "cluster-tests"] {
        sources(&root.join(member), &mut paths);
    }
    paths.sort();
    let relative = |p: PathBuf| {
        let text = fs::read_to_string(&p).expect("text");
        (
            p.strip_prefix(&root)
                .expect("below the root")
                .display()
                .to_string(),
            text,
        )
    };
    paths.into_iter().map(relative).collect()
}

/// The part of a file that is not tests.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\n").next().unwrap_or(text)
}

/// Code without comments: a rule is about what is imported, not about what is told.
fn without_comments(text: &str) -> String {
    code(text)
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("_tests.rs") || path.ends_with("/tests.rs")
}

#[test]
fn every_module_says_what_it_is() {
    let without: Vec<_> = all()
        .into_iter()
        .filter(|(p, t)| !is_test(p) && !t.starts_with("//!") && !t.starts_with("#!["))
        .collect();
    let names: Vec<_> = without.iter().map(|(p, _)| p).collect();
    assert!(names.is_empty(), "no module header: {names:?}");
}

#[test]
fn no_file_outgrows_its_room() {
    let lines = |t: &str| {
        let counted = |l: &&str| !l.trim().is_empty() && !l.trim_start().starts_with("//");
        code(t).lines().filter(counted).count()
    };
    let long: Vec<_> = all()
        .into_iter()
        .map(|(p, t)| (lines(&t), p))
        .filter(|(n, p)| *n > MAX_LINES && !is_test(p))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines of code: {long:?}");
}

#[test]
fn nothing_is_left_undone() {
    // Written apart, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let ignored = concat!("#[ig", "nore");
    for (path, text) in all() {
        for mark in marks.iter().chain([&ignored]) {
            assert!(!text.contains(mark), "{path} holds {mark}");
        }
    }
}

struct Rule {
    /// Files that the rule is about.
    concerns: fn(&str) -> bool,
    /// What they must not contain.
    never: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        concerns: |p| {
            p.starts_with("broker/src/")
                && (p.ends_with("/state.rs") || PURE.iter().any(|f| p.ends_with(f)))
        },
        never: &[
            "actix",
            "tokio",
            "quinn",
            "std::fs",
            "Instant",
            "SystemTime",
            "crate::storage",
            "std::thread",
            "HashMap",
        ],
        why: "a core is pure",
    },
    Rule {
        concerns: |p| p.starts_with("broker/src/storage/"),
        never: &[
            "actix",
            "quinn",
            "tokio",
            "crate::leader",
            "crate::coordinator",
            "crate::controller",
            "crate::api",
            "crate::net",
        ],
        why: "storage knows no actor and no domain",
    },
    Rule {
        concerns: |p| p.starts_with("broker/src/api/"),
        never: &[
            "crate::storage",
            "crate::net",
            "Leader::new",
            "leader::state",
            "std::fs",
        ],
        why: "api sends messages",
    },
    Rule {
        // Other nodes are no clients: what they ask goes to the actors.
        concerns: |p| p.starts_with("broker/src/net/") && p != "broker/src/net/peer.rs",
        never: &[
            "crate::leader",
            "crate::coordinator",
            "crate::controller",
            "crate::replicas",
            "crate::storage",
        ],
        why: "doors reach the API only",
    },
    Rule {
        concerns: |p| p.starts_with("broker/src/supervision/"),
        never: &[
            "crate::leader",
            "crate::coordinator",
            "crate::controller",
            "crate::storage",
            "crate::api",
            "crate::net",
        ],
        why: "supervision knows no domain",
    },
    Rule {
        concerns: |p| p.starts_with("broker/src/") && !p.starts_with("broker/src/cli/"),
        never: &["callboard_client"],
        why: "the library does not use the client",
    },
    Rule {
        concerns: |p| p.starts_with("client/src/"),
        never: &[
            "callboard_broker::storage",
            "callboard_broker::leader",
            "callboard_broker::api",
        ],
        why: "the client does not use the broker, but for its doc tests a whole node",
    },
    Rule {
        concerns: |p| p.starts_with("common/src/"),
        never: &["callboard_broker", "callboard_client", "actix::"],
        why: "common is below all and has no actors",
    },
    Rule {
        concerns: |p| p.starts_with("broker/src/") && !p.starts_with("broker/src/supervision/"),
        never: &[".do_send(", "catch_unwind"],
        why: "supervision is the one door to mailboxes and panics",
    },
    Rule {
        concerns: |p| {
            p.starts_with("broker/src/")
                && !p.starts_with("broker/src/storage/disk/")
                && !FILE_DOORS.contains(&p)
        },
        never: &["std::fs", "File::open", "OpenOptions"],
        why: "files go through Disk",
    },
];

/// Files named pure beside the cores.
const PURE: &[&str] = &[
    "leader/delayed.rs",
    "leader/error.rs",
    "leader/pace.rs",
    "coordinator/deletion.rs",
    "coordinator/writes.rs",
    "security/acls.rs",
    "security/image.rs",
    "security/quotas.rs",
    "security/sasl.rs",
    "security/scram.rs",
    "coordinator/group.rs",
    "coordinator/member.rs",
    "coordinator/offsets.rs",
    "coordinator/join.rs",
    "coordinator/commit.rs",
    "coordinator/expiry.rs",
    "coordinator/records.rs",
    "coordinator/io.rs",
    "controller/image.rs",
    "controller/records.rs",
    "controller/kafka_metadata.rs",
    "supervision/restart.rs",
    "storage/retention.rs",
    "topic_config.rs",
    "net/kafka/fetch_session.rs",
];

/// The lock of the data directory and the operator's certificates are no data; the command line is no node.
const FILE_DOORS: &[&str] = &[
    "broker/src/node/mod.rs",
    "broker/src/node/prepare.rs",
    "broker/src/cli/adopt.rs",
    "broker/src/cli/cert.rs",
    "broker/src/cli/connect.rs",
    "broker/src/cli/user.rs",
    "broker/src/cli/log_dump.rs",
    "broker/src/cli/produce.rs",
    "broker/src/cli/start.rs",
];

#[test]
fn imports_go_one_way() {
    for (path, text) in all().iter().filter(|(p, _)| !is_test(p)) {
        let code = without_comments(text);
        for rule in RULES.iter().filter(|r| (r.concerns)(path)) {
            for never in rule.never {
                assert!(
                    !code.contains(never),
                    "{path} holds {never:?}, but {}",
                    rule.why
                );
            }
        }
    }
}
