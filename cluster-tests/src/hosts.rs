//! Hosts of their own for the nodes of a test: network namespaces, made by `hosts.sh`, in which a network can be cut.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the hosts of this process are.
const HERE: &str = "CALLBOARD_HOSTS";
/// Says that tests which need hosts must not be left out.
const REQUIRED: &str = "CALLBOARD_NEEDS_HOSTS";

/// Hosts that are there. This process runs on the client's.
#[derive(Clone, Debug)]
pub struct Hosts {
    dir: PathBuf,
}

/// Removes the hosts when the test has ended, however it did.
struct Down(Hosts);

impl Drop for Down {
    fn drop(&mut self) {
        let _status = self.0.command(&["down"]).status();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts.sh")
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the script runs")
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn this_program() -> String {
    let tests = std::env::current_exe().expect("a test is a program");
    tests.display().to_string()
}

impl Hosts {
    /// The hosts that this test runs on. The first call makes them, runs the test of this name again on them, and answers
    /// nothing when that is done: the caller returns then. On a machine that allows no hosts the test is left out, and
    /// says so.
    ///
    /// # Panics
    ///
    /// Panics if the test fails, or if there can be no hosts and `CALLBOARD_NEEDS_HOSTS` is set.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
    pub fn of_test(name: &str, count: u8) -> Option<Self> {
        match Self::of_program(count, &["--exact", name, "--nocapture"]) {
            Ok(hosts) => return Some(hosts),
            Err(Ok(code)) => assert!(code == 0, "{name} on hosts of its own"),
            Err(Err(why)) => {
                assert!(std::env::var_os(REQUIRED).is_none(), "{why}");
                eprintln!("{name} is LEFT OUT: {why}");
            }
        }
        None
    }

    /// The hosts that this program runs on, as [`Hosts::of_test`]. The first call makes them, runs this program again on
    /// them with these arguments, and answers its exit code.
    ///
    /// # Errors
    ///
    /// The exit code of that run, which is over then; or why there can be no hosts.
    pub fn of_program(count: u8, arguments: &[&str]) -> Result<Self, Result<u8, String>> {
        if let Some(dir) = std::env::var_os(HERE) {
            return Ok(Self { dir: dir.into() });
        }
        let check = output(Command::new(script()).arg("check"));
        if !check.status.success() {
            return Err(Err(String::from_utf8_lossy(&check.stderr).into_owned()));
        }
        let code = Self::again(count, arguments).and_then(|c| u8::try_from(c).ok());
        Err(Ok(code.unwrap_or(2)))
    }

    /// Makes hosts, runs this program again on them, and removes them.
    fn again(count: u8, arguments: &[&str]) -> Option<i32> {
        let dir = temporary();
        let hosts = Self {
            dir: dir.path().to_owned(),
        };
        let down = Down(hosts.clone());
        hosts.run(&["up", &count.to_string()]);
        let program = this_program();
        let mut all = vec!["run", &program];
        all.extend(arguments);
        let again = hosts.command(&all).env(HERE, &hosts.dir).status();
        drop(down);
        again.ok().and_then(|s| s.code())
    }

    /// Where the nodes' data may be.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(script());
        let (action, rest) = arguments.split_first().expect("an action");
        let _same = command
            .arg(action)
            .arg(&self.dir)
            .args(rest)
            .env("BINARY", crate::process::binary());
        command
    }

    /// An action of the script.
    ///
    /// # Panics
    ///
    /// Panics with what it said if it fails.
    pub fn run(&self, arguments: &[&str]) {
        let out = output(&mut self.command(arguments));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {said}");
    }

    /// What puts a command on a node's host.
    #[must_use]
    pub fn wrap(&self, node: u8) -> Vec<String> {
        let dir = self.dir.display().to_string();
        let script = script().display().to_string();
        [script, "exec".into(), dir, node.to_string()].into()
    }
}
