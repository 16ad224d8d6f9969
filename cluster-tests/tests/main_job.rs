//! The main job with the real binary and our own client: a log file piped into a topic, read by a group of three,
//! replayed from the beginning after a kill -9.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use callboard_client::{Client, ClientConfig, Producer, ProducerConfig, Record, Trust};
use callboard_cluster_tests::process::{NodeProcess, binary};

const LINES: usize = 10_000;

/// Ten thousand lines of a log that a real program wrote; the system's own, or else what cargo locked.
fn log_lines() -> Vec<u8> {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let text = ["/var/log/dpkg.log", "/var/log/syslog", lock]
        .iter()
        .find_map(|p| std::fs::read(p).ok().filter(|t| t.len() > 1000));
    let text = text.expect("the lock file is there at least");
    let whole: Vec<&[u8]> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    let mut out = Vec::new();
    for i in 0..LINES {
        out.extend_from_slice(format!("{i} ").as_bytes());
        out.extend_from_slice(whole[i % whole.len()]);
        out.push(b'\n');
    }
    out
}

#[test]
fn a_log_file_goes_in_and_comes_out_byte_for_byte_also_after_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = NodeProcess::start(dir.path());
    let input = log_lines();
    drop(node.expect(&["topic", "create", "logs", "--partitions", "1"], b""));
    drop(node.expect(&["produce", "logs", "--compression", "zstd"], &input));
    assert!(
        node.expect(&["consume", "logs"], b"") == input,
        "what went in comes out"
    );
    node.kill();
    node.restart();
    assert!(
        node.expect(&["consume", "logs", "--from", "beginning"], b"") == input,
        "and after kill -9"
    );
    let tail = node.expect(&["consume", "logs", "--from", "9990"], b"");
    assert!(input.ends_with(&tail) && tail.iter().filter(|b| **b == b'\n').count() == 10);
    let one = node.expect(&["consume", "logs", "--from", "9999", "--json"], b"");
    let record: serde_json::Value = serde_json::from_slice(&one).expect("JSON");
    assert_eq!(
        (&record["offset"], &record["topic"]),
        (&9999.into(), &"logs".into())
    );
    assert_eq!(node.terminate(), Some(0));
    assert!(dir.path().join(".kafka_cleanshutdown").exists());
}

fn member_of_three(node: &NodeProcess) -> Child {
    Command::new(binary())
        .args(["consume", "shared", "--group", "three"])
        .env("CALLBOARD_PROFILE", node.data().join("client.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

/// The group as `group describe` shows it; null while there is none.
fn describe_three(node: &NodeProcess) -> serde_json::Value {
    let listed = node.expect(&["group", "list", "--json"], b"");
    if !String::from_utf8_lossy(&listed).contains("three") {
        return serde_json::Value::Null;
    }
    let said = node.expect(&["group", "describe", "three", "--json"], b"");
    serde_json::from_slice(&said).expect("JSON")
}

fn until_all_three_are_members(node: &NodeProcess) {
    let mut group = serde_json::Value::Null;
    for _ in 0..600 {
        group = describe_three(node);
        let members = group["members"].as_array().map_or(0, Vec::len);
        if group["state"] == "Stable" && members == 3 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the group of three has not come together: {group}");
}

/// What the consumers write, line by line, with the consumer's number.
fn heard(consumers: &mut [Child]) -> Receiver<(usize, Vec<u8>)> {
    let (hear, lines) = std::sync::mpsc::channel();
    for (i, consumer) in consumers.iter_mut().enumerate() {
        let out = BufReader::new(consumer.stdout.take().expect("piped"));
        let hear = hear.clone();
        drop(std::thread::spawn(move || {
            for line in out.split(b'\n') {
                hear.send((i, line.expect("a line"))).expect("heard");
            }
        }));
    }
    lines
}

/// While there are members.
fn a_reset_is_refused(node: &NodeProcess) {
    let reset = [
        "group", "reset", "three", "--topic", "shared", "--to", "end",
    ];
    let refused = node.run(&reset, b"");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("has 3 members"), "{error}");
}

#[test]
fn three_consumers_share_a_topic_and_the_group_replays_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = NodeProcess::start(dir.path());
    let input = log_lines();
    drop(node.expect(&["topic", "create", "shared", "--partitions", "6"], b""));
    let mut consumers: Vec<Child> = (0..3).map(|_| member_of_three(&node)).collect();
    until_all_three_are_members(&node);
    let lines = heard(&mut consumers);
    drop(node.expect(&["produce", "shared"], &input));
    let mut by_consumer = [0usize; 3];
    let mut seen = BTreeSet::new();
    while seen.len() < LINES {
        let (i, line) = lines
            .recv_timeout(Duration::from_secs(60))
            .expect("all lines come");
        by_consumer[i] += 1;
        assert!(seen.insert(line), "each line is read once");
    }
    assert!(
        by_consumer.iter().all(|n| *n > 0),
        "all three have work: {by_consumer:?}"
    );
    a_reset_is_refused(&node);
    for consumer in &mut consumers {
        // An interrupt lets them commit and leave.
        let asked = Command::new("kill")
            .args(["-INT", &consumer.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(asked.success());
        let _status = consumer.wait().expect("it ends");
    }
    let group = describe_three(&node);
    let lag: i64 = group["offsets"]
        .as_array()
        .expect("offsets")
        .iter()
        .filter_map(|o| o["lag"].as_i64())
        .sum();
    assert_eq!((lag, &group["state"]), (0, &"Empty".into()), "{group}");
    node.kill();
    node.restart();
    drop(node.expect(
        &[
            "group",
            "reset",
            "three",
            "--topic",
            "shared",
            "--to",
            "beginning",
        ],
        b"",
    ));
    let replay = node.expect(
        &[
            "consume",
            "shared",
            "--group",
            "three",
            "--max",
            &LINES.to_string(),
        ],
        b"",
    );
    let replayed: BTreeSet<Vec<u8>> = replay
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    assert_eq!(replayed, seen);
}

/// kill -9 while our own producer sends: what was acknowledged is there, each record once.
#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the producer's task belongs to nobody's supervision"
)]
async fn kill_9_under_load_with_our_own_client() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = NodeProcess::start(dir.path());
    let ca = std::fs::read_to_string(dir.path().join("development-ca.pem"))
        .expect("written by the node");
    let client = Client::connect(ClientConfig::new(node.quic, Trust::Ca(ca)))
        .await
        .expect("connects");
    client
        .admin()
        .create_topic("durable", 2)
        .await
        .expect("created");
    let producer = Producer::new(
        &client,
        ProducerConfig {
            batch_size_bytes: 2000,
            ..ProducerConfig::default()
        },
    );
    let sending = tokio::spawn(async move {
        let mut pending = Vec::new();
        for i in 0..4000 {
            let record = Record::to("durable")
                .key(format!("{}", i % 20))
                .value(format!("value-{i}"));
            pending.push((i, producer.enqueue(record).await.expect("queued")));
            if i % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        }
        let mut acknowledged = BTreeSet::new();
        for (i, delivery) in pending {
            let _delivery = delivery.await.expect("delivered in the end");
            let _new = acknowledged.insert(format!("value-{i}"));
        }
        acknowledged
    });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        node.kill();
        node.restart();
    }
    let acknowledged = tokio::time::timeout(Duration::from_secs(120), sending)
        .await
        .expect("in time")
        .expect("sent");
    let out = node.expect(&["consume", "durable"], b"");
    let lines: Vec<String> = String::from_utf8(out)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), acknowledged.len(), "each record once");
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>(), acknowledged);
}

#[test]
fn errors_say_what_to_do_and_exit_codes_tell_programs() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(dir.path());
    let fails = |arguments: &[&str], code: i32, said: &str| {
        let output = node.run(arguments, b"");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    };
    let data = dir.path().display().to_string();
    fails(&["start", "--data", &data], 1, "in use by another process");
    fails(
        &["start", "--set", "log.segment_byte=1"],
        1,
        "did you mean \"log.segment_bytes\"?",
    );
    fails(
        &["start", "--set", "log.segment_bytes=1", "--check-config"],
        1,
        "allowed are 14 to 2147483647",
    );
    fails(&["topic", "describe", "nothing"], 1, "nothing");
    fails(&["topic", "create", "a/b"], 1, "allowed are ASCII letters");
    fails(&["group", "describe", "nobody"], 1, "callboard group list");
    fails(&["consume"], 2, "Usage");
    fails(
        &["consume", "t", "--from", "soon"],
        2,
        "2026-11-24T08:00:00Z",
    );
    fails(&["produce", "t", "/no/such/file"], 1, "/no/such/file");
    fails(
        &[
            "topic",
            "list",
            "--server",
            "127.0.0.1:1",
            "--fingerprint",
            &"0".repeat(64),
        ],
        1,
        "is the node running",
    );
    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::write(foreign.path().join("letters.txt"), b"dear").expect("written");
    fails(
        &["start", "--data", &foreign.path().display().to_string()],
        1,
        "is not Callboard's",
    );
    drop(node.expect(&["topic", "create", "one"], b""));
    fails(
        &["topic", "describe", "nothing"],
        1,
        "there is no topic nothing",
    );
    fails(
        &["produce", "one", "--partition", "7"],
        1,
        "topic one has partitions 0 to 0",
    );
    fails(
        &["consume", "one", "--from", "9", "-f"],
        1,
        "one-0 begins at 0 and ends at 0",
    );
    let completions = node.expect(&["completions", "bash"], b"");
    assert!(String::from_utf8_lossy(&completions).contains("callboard"));
}

/// What could not be written was not read: the group does not go on behind it. What was accepted before a line that is
/// too long arrives.
#[test]
fn a_group_remembers_only_what_was_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(dir.path());
    drop(node.expect(&["produce", "written"], b"one\ntwo\nthree\n"));
    let full = std::fs::File::create("/dev/full").expect("a full device");
    let status = Command::new(binary())
        .args(["consume", "written", "--group", "g", "--max", "3"])
        .env("CALLBOARD_PROFILE", node.data().join("client.toml"))
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .expect("the binary runs");
    assert_eq!(status.code(), Some(1));
    let consume = ["consume", "written", "--group", "g", "--max", "3"];
    assert_eq!(node.expect(&consume, b""), b"one\ntwo\nthree\n");

    let long = [
        b"four\n".to_vec(),
        vec![b'x'; 2 << 20],
        b"\nfive\n".to_vec(),
    ]
    .concat();
    let output = node.run(&["produce", "written"], &long);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("line 2: a record of"), "{error}");
    assert!(error.contains("1 records delivered"), "{error}");
    let last = node.expect(&["consume", "written", "--from", "3"], b"");
    assert_eq!(last, b"four\n");
}

#[test]
fn health_and_metrics_are_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(dir.path());
    drop(node.expect(&["produce", "t"], b"one\ntwo\nthree\n"));
    drop(node.expect(&["consume", "t", "--group", "g", "--max", "2"], b""));
    let health = node.get("/health");
    assert!(
        health.starts_with("HTTP/1.1 200") && health.contains(r#""ready":true"#),
        "{health}"
    );
    let metrics = node.get("/metrics");
    for line in [
        "callboard_log_end_offset{topic=\"t\",partition=\"0\"} 3",
        "callboard_group_lag_records{group=\"g\",topic=\"t\",partition=\"0\"} 1",
        "callboard_group_lag_seconds{group=\"g\",topic=\"t\",partition=\"0\"}",
        "callboard_appended_records_total",
        "callboard_sync_duration_seconds_count",
        "callboard_request_duration_seconds_count{door=\"quic\",request=\"Produce\"}",
        "callboard_received_bytes_total{door=\"quic\",request=\"Produce\"}",
        "callboard_credits_used_bytes",
        "callboard_actor_restarts_total 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(node.get("/../etc/passwd").starts_with("HTTP/1.1 404"));
}

/// Whoever starts a node has a low limit of open files more often than not: 256 here, and 400 connections and 30 logs.
#[test]
fn a_low_limit_of_open_files_is_raised() {
    let dir = tempfile::tempdir().expect("a directory");
    let lower = ["sh", "-c", "ulimit -Sn 256; exec \"$@\"", "sh"];
    let wrap = lower.map(str::to_owned).to_vec();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let node = NodeProcess::start_within(wrap, dir.path(), [any; 3], &[]);
    let connect = |_| std::net::TcpStream::connect(node.kafka).expect("connects");
    let connections: Vec<_> = (0..400).map(connect).collect();
    drop(node.expect(&["topic", "create", "t", "--partitions", "30"], b""));
    let line = format!("{}\n", "x".repeat(1000)).into_bytes();
    for partition in 0..30 {
        let partition = partition.to_string();
        let produce = ["produce", "t", "--partition", &partition];
        drop(node.expect(&produce, &line));
    }
    assert_eq!(node.expect(&["consume", "t"], b""), line.repeat(30));
    drop(connections);
}
