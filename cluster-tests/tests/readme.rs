//! The README's tour is true line by line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use callboard_cluster_tests::hosts::Hosts;
use callboard_cluster_tests::process::binary;

/// A command of the tour and the lines that must follow it; `...` stands for any.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn tour(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```console tour" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    command: command.to_owned(),
                    expected: Vec::new(),
                }),
                None => steps
                    .last_mut()
                    .expect("a command comes first")
                    .expected
                    .push(line.to_owned()),
            },
        }
    }
    steps
}

/// The command as a user types it: the binary is in the path, the node takes free ports.
fn shell(command: &str, dir: &Path) -> Command {
    let mut shell = typed(Command::new("sh"), command, dir);
    for door in ["KAFKA", "QUIC", "HTTP"] {
        let _same = shell.env(format!("CALLBOARD__LISTENERS__{door}"), "127.0.0.1:0");
    }
    shell
}

/// Has a shell run a command.
fn typed(mut shell: Command, command: &str, dir: &Path) -> Command {
    let bin = binary().parent().expect("a directory").to_owned();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    )));
    let _same = shell
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", path.expect("a path"));
    let _same = shell.env_remove("CALLBOARD_PROFILE");
    shell
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

fn start(command: &str, dir: &Path) -> Node {
    let mut node = begin(shell(&format!("exec {command}"), dir));
    wait_until_ready(&mut node, command);
    node
}

fn begin(mut command: Command) -> Node {
    let (out, err) = (Stdio::piped(), Stdio::null());
    Node(command.stdout(out).stderr(err).spawn().expect("it runs"))
}

fn wait_until_ready(node: &mut Node, command: &str) {
    let mut line = String::new();
    let out = node.0.stdout.take().expect("piped");
    let _read = BufReader::new(out).read_line(&mut line).expect("a line");
    assert!(line.starts_with("ready "), "{command}: {line:?}");
}

/// The three commands, in the order of the README, and what is done there then.
#[test]
fn three_commands_make_a_cluster_of_three() {
    // On a host of its own the usual ports are free.
    let Some(_host) = Hosts::of_test("three_commands_make_a_cluster_of_three", 1) else {
        return;
    };
    let readme = include_str!("../../README.md");
    let dir = tempfile::tempdir().expect("a directory");
    let run = |command: &str| typed(Command::new("sh"), command, dir.path());
    let commands = |with: &str| {
        let indented = readme
            .lines()
            .filter_map(|l| l.strip_prefix("    callboard "));
        let wanted = indented.filter(|l| l.contains(with));
        wanted
            .map(|l| format!("exec callboard {l}"))
            .collect::<Vec<_>>()
    };
    let starts = commands("start --member");
    assert_eq!(starts.len(), 3, "{starts:?}");
    let mut nodes: Vec<Node> = starts.iter().map(|c| begin(run(c))).collect();
    for (node, command) in nodes.iter_mut().zip(&starts) {
        wait_until_ready(node, command);
    }
    let then = commands("--profile callboard-data-");
    assert!(then.len() >= 2, "{then:?}");
    for command in then {
        let output = run(&command).output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
    }
    let status = "callboard cluster status --json --profile callboard-data-3/client.toml";
    let output = run(status).output().expect("a shell");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = told["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3, "{told}");
    assert!(nodes.iter().all(|n| n["votes"] == true), "{told}");
    assert_eq!(told["partitions"]["all"], 6, "{told}");
}

#[test]
fn every_command_of_the_tour_does_what_it_says() {
    let readme = include_str!("../../README.md");
    let dir = tempfile::tempdir().expect("a directory");
    let steps = tour(readme);
    assert!(steps.len() >= 10, "the tour has steps");
    let mut node = None;
    for step in &steps {
        if step.command == "callboard start" {
            node = Some(start(&step.command, dir.path()));
            continue;
        }
        let output = shell(&step.command, dir.path()).output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", step.command);
        let out = String::from_utf8(output.stdout).expect("text");
        let lines: Vec<&str> = out.lines().collect();
        match step.expected.iter().position(|l| l == "...") {
            Some(fixed) => assert_eq!(lines[..fixed], step.expected[..fixed], "{}", step.command),
            None => assert_eq!(lines, step.expected, "{}", step.command),
        }
    }
    assert!(node.is_some(), "the tour starts a node");
    for command in ["cargo run --release -- start", "cargo test --workspace"] {
        assert!(readme.contains(command), "{command}");
    }
}
