//! Nodes as processes: the real binary, on a directory of its own, killed and started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

/// The binary that was built with the tests.
///
/// # Panics
///
/// Panics if it cannot be built.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let tests = std::env::current_exe().expect("a test is a program");
        // Tests stand in target/PROFILE/deps, programs in target/PROFILE.
        let beside = tests.with_file_name("callboard");
        let above = tests.ancestors().nth(2).expect("a folder above");
        let binary = match beside.exists() {
            true => beside,
            false => above.join("callboard"),
        };
        if !binary.exists() {
            // Only this package was tested: the other's binary was not built with it.
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--workspace", "--bin", "callboard"])
                .status();
            assert!(built.is_ok_and(|s| s.success()), "the binary is built");
        }
        binary
    })
}

fn door_arguments(doors: [SocketAddr; 3]) -> Vec<String> {
    let mut arguments = Vec::new();
    for (door, address) in ["--kafka", "--quic", "--http"].iter().zip(doors) {
        arguments.extend([(*door).to_owned(), address.to_string()]);
    }
    arguments
}

/// Takes what a node says until it ends.
fn collect(from: ChildStderr, said: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut said = said.lock().expect("nobody panics with it");
            // A node that is killed may leave half a character.
            said.push_str(&String::from_utf8_lossy(&line));
            said.push('\n');
        }
    })
}

/// A node that runs as a process.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    data: PathBuf,
    arguments: Vec<String>,
    /// What stands before the command that runs it.
    wrap: Vec<String>,
    /// What it has written to its log, over all its starts.
    said: Arc<Mutex<String>>,
    /// The Kafka door.
    pub kafka: SocketAddr,
    /// The QUIC door.
    pub quic: SocketAddr,
    /// The HTTP door.
    pub http: SocketAddr,
}

impl NodeProcess {
    /// Starts a node on free ports and waits until it is ready.
    ///
    /// # Panics
    ///
    /// Panics with what the node said if it does not start.
    #[must_use]
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// As [`NodeProcess::start`], with more arguments.
    ///
    /// # Panics
    ///
    /// As [`NodeProcess::start`].
    #[must_use]
    pub fn start_with(data: &Path, more: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(data, [any; 3], more)
    }

    /// As [`NodeProcess::start_with`], with these addresses for Kafka, QUIC and HTTP.
    ///
    /// # Panics
    ///
    /// As [`NodeProcess::start`].
    #[must_use]
    pub fn start_at(data: &Path, doors: [SocketAddr; 3], more: &[&str]) -> Self {
        Self::start_within(Vec::new(), data, doors, more)
    }

    /// As [`NodeProcess::start_at`], by a command that ends in running another one, like `ip netns exec NAME`.
    ///
    /// # Panics
    ///
    /// As [`NodeProcess::start`].
    #[must_use]
    pub fn start_within(
        wrap: Vec<String>,
        data: &Path,
        doors: [SocketAddr; 3],
        more: &[&str],
    ) -> Self {
        let mut arguments = door_arguments(doors);
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        Self::launch(wrap, data.to_owned(), arguments, Arc::default())
    }

    fn launch(
        wrap: Vec<String>,
        data: PathBuf,
        arguments: Vec<String>,
        said: Arc<Mutex<String>>,
    ) -> Self {
        let mut command = match wrap.split_first() {
            None => Command::new(binary()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                let _same = command.args(rest).arg(binary());
                command
            }
        };
        let mut child = command
            .arg("start")
            .args(&arguments)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = collect(child.stderr.take().expect("piped"), said.clone());
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let _read = out.read_line(&mut line).expect("a line or the end");
        let ready = Ready::parse(&line).unwrap_or_else(|| {
            let _status = child.wait();
            drop(log.join());
            let said = said.lock().expect("nobody panics with it").clone();
            panic!("the node did not start: {line:?}\n{said}")
        });
        // Whatever else it says must not fill the pipe.
        drop(thread::spawn(move || {
            drop(std::io::copy(&mut out, &mut std::io::sink()))
        }));
        Self {
            child,
            data,
            arguments,
            wrap,
            said,
            kafka: ready.kafka,
            quic: ready.quic,
            http: ready.http,
        }
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it has written to its log so far, over all its starts.
    ///
    /// # Panics
    ///
    /// Never: nobody panics while it is written.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether somebody else has ended it.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Kills the node as the machine's failure would, without a chance to write anything.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let _status = self.child.wait().expect("it has ended");
    }

    /// Starts the node again on the same directory and ports.
    ///
    /// # Panics
    ///
    /// As [`NodeProcess::start`].
    pub fn restart(&mut self) {
        let doors = [self.kafka, self.quic, self.http];
        let mut arguments = door_arguments(doors);
        arguments.extend(self.arguments.iter().skip(6).cloned());
        let (wrap, data) = (self.wrap.clone(), self.data.clone());
        let next = Self::launch(wrap, data, arguments, self.said.clone());
        let old = std::mem::replace(self, next);
        drop(old);
    }

    /// As [`NodeProcess::restart`], with more settings, each as `name=value`; the last one counts.
    ///
    /// # Panics
    ///
    /// As [`NodeProcess::start`].
    pub fn restart_with(&mut self, settings: &[&str]) {
        let more = settings.iter().flat_map(|s| ["--set", s]);
        self.arguments.extend(more.map(str::to_owned));
        self.restart();
    }

    /// Sends the process a signal, by its name.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be sent.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(sent.is_ok_and(|s| s.success()), "{name} can be sent");
    }

    /// Asks the node to stop in order; answers its exit code.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be asked.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().expect("it has ended").code()
    }

    /// What the node's HTTP door answers to a GET, with its head.
    ///
    /// # Panics
    ///
    /// Panics if it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("its door is open");
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        let _read = stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Runs a client command against this node, with `input` on its standard input.
    ///
    /// # Panics
    ///
    /// Panics if the command does not run.
    #[must_use]
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(binary())
            .args(arguments)
            .env("CALLBOARD_PROFILE", self.data.join("client.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // A command that ends early reads no further.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("it ends");
        drop(writer.join());
        output
    }

    /// As [`NodeProcess::run`], and expects success; returns standard output.
    ///
    /// # Panics
    ///
    /// Panics with what the command said if it fails.
    #[must_use]
    pub fn expect(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(arguments, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?} failed with {}: {said}",
            output.status
        );
        output.stdout
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The line that a node prints when it serves.
struct Ready {
    kafka: SocketAddr,
    quic: SocketAddr,
    http: SocketAddr,
}

impl Ready {
    fn parse(line: &str) -> Option<Self> {
        let words = line.strip_prefix("ready ")?;
        let address = |name: &str| {
            words
                .split(' ')
                .find_map(|w| w.strip_prefix(name)?.parse().ok())
        };
        Some(Self {
            kafka: address("kafka=")?,
            quic: address("quic=")?,
            http: address("http=")?,
        })
    }
}
