//! The README's tour is true line by line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
    let mut shell = Command::new("sh");
    let bin = binary().parent().expect("a directory").to_owned();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    )));
    let _same = shell
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", path.expect("a path"));
    let _same = shell.env_remove("CALLBOARD_PROFILE");
    for door in ["KAFKA", "QUIC", "HTTP"] {
        let _same = shell.env(format!("CALLBOARD__LISTENERS__{door}"), "127.0.0.1:0");
    }
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
    let mut child = shell(&format!("exec {command}"), dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    let _read = BufReader::new(out).read_line(&mut line).expect("a line");
    let node = Node(child);
    assert!(line.starts_with("ready "), "{command}: {line:?}");
    node
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
