//! `callboard start`: runs a node until it is told to stop.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use callboard_broker::{BrokerConfig, Node, OUTDATED_REASON, StartError};
use callboard_client::Profile;
use callboard_common::config::load;
use callboard_common::{logging, transport::tls::TlsError};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slog::{info, warn};

use super::output::{self, Failure};
use super::told_to_stop;

/// Files beside connections and those that are kept open: logs that are written, sockets, pipes.
const FILES_BESIDE: usize = 1000;

/// Run a node.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// TOML file with settings; without it the defaults hold.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [default: ./callboard-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address for Kafka clients, TCP [default: 127.0.0.1:9092].
    #[arg(long, value_name = "ADDR")]
    kafka: Option<SocketAddr>,
    /// Address for Callboard's clients, UDP [default: 127.0.0.1:9192].
    #[arg(long, value_name = "ADDR")]
    quic: Option<SocketAddr>,
    /// Address for health and metrics, TCP [default: 127.0.0.1:9292].
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Address for other nodes, UDP and TCP [default: 127.0.0.1:9392]; opened with cluster.certificates.
    #[arg(long, value_name = "ADDR")]
    peer: Option<SocketAddr>,
    /// Be node I of a cluster of N on this machine: ports, data directory and certificates follow from it.
    #[arg(long, value_name = "I/N")]
    member: Option<Member>,
    /// Any other setting, as section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check the settings and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the settings that would hold, as TOML, and exit.
    #[arg(long)]
    print_config: bool,
}

/// One of the nodes of a cluster on this machine.
#[derive(Clone, Copy, Debug)]
struct Member {
    number: u16,
    of: u16,
}

impl std::str::FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no I/N with I from 1 to N, and N from 1 to 9");
        let (number, of) = text.split_once('/').ok_or_else(wanted)?;
        let (number, of) = (number.parse().ok(), of.parse().ok());
        match (number, of) {
            (Some(number), Some(of)) if (1..=of).contains(&number) && of <= 9 => {
                Ok(Self { number, of })
            }
            _ => Err(wanted()),
        }
    }
}

impl Member {
    /// Settings that follow from being this member.
    fn settings(self) -> Result<Vec<(String, String)>, Failure> {
        let id = callboard_common::BrokerId(self.number.into());
        let certificates = super::cert::of_local_member(id)?;
        let at = |base: u16, number: u16| format!("127.0.0.1:{}", base + number - 1);
        let voters: Vec<String> = (1..=self.of)
            .map(|n| format!("{n}@{}", at(9392, n)))
            .collect();
        let setting = |key: &str, value: String| (key.to_owned(), value);
        Ok(vec![
            setting("node.id", id.to_string()),
            setting("node.data", format!("./callboard-data-{id}")),
            setting("listeners.kafka", at(9092, self.number)),
            setting("listeners.quic", at(9192, self.number)),
            setting("listeners.http", at(9292, self.number)),
            setting("listeners.peer", at(9392, self.number)),
            setting("cluster.certificates", certificates.display().to_string()),
            setting("cluster.voters", voters.join(",")),
        ])
    }
}

impl Start {
    fn settings(&self) -> Result<BrokerConfig, Failure> {
        let mut overrides = match self.member {
            Some(member) => member.settings()?,
            None => Vec::new(),
        };
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--set {setting:?}: wanted is section.key=value"))
            })?;
            overrides.push((key.to_owned(), value.to_owned()));
        }
        let data = self.data.as_ref().map(|d| d.display().to_string());
        let address = |a: &Option<SocketAddr>| a.map(|a| a.to_string());
        for (key, value) in [
            ("node.data", data),
            ("listeners.kafka", address(&self.kafka)),
            ("listeners.quic", address(&self.quic)),
            ("listeners.http", address(&self.http)),
            ("listeners.peer", address(&self.peer)),
        ] {
            overrides.extend(value.map(|value| (key.to_owned(), value)));
        }
        let loaded = load(
            &BrokerConfig::default(),
            self.config.as_deref(),
            std::env::vars(),
            &overrides,
        );
        let config = loaded.map_err(Failure::new)?;
        config.validate().map_err(Failure::new)?;
        Ok(config)
    }
}

pub(crate) fn run(start: &Start) -> Result<(), Failure> {
    let config = start.settings()?;
    if start.print_config {
        let text = toml::to_string_pretty(&config).map_err(Failure::new)?;
        return output::line(text.trim_end());
    }
    if start.check_config {
        output::note("the settings are valid");
        return Ok(());
    }
    let (logger, guard) =
        logging::start(config.logging.format, config.level().map_err(Failure::new)?);
    callboard_broker::supervision::report_panics(logger.clone());
    if !config.security.authenticate {
        warn_about_open_doors(&config, &logger);
        warn_about_addresses(&config, &logger);
    }
    raise_open_files(&config, &logger);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(serve(config, logger))? {
        Ended::InOrder => Ok(()),
        Ended::Outdated => {
            // What is left of the log is written first.
            drop(guard);
            Err(start_again())
        }
    }
}

/// Log files and connections are many: a process may open as many files as its hard limit says, if it asks for them.
fn raise_open_files(config: &BrokerConfig, logger: &slog::Logger) {
    let before = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: before.maximum,
        ..before
    };
    let open = match setrlimit(Resource::Nofile, most) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    let wanted = config.limits.connections + config.node.open_files + FILES_BESIDE;
    if open.is_some_and(|open| open < wanted as u64) {
        warn!(logger, "the process may open fewer files than its settings ask for: raise its limit (ulimit -n, LimitNOFILE)";
            "open_files_max" => open, "wanted" => wanted);
    }
}

/// Without authentication a door beyond loopback is open to everybody who reaches it.
fn warn_about_open_doors(config: &BrokerConfig, logger: &slog::Logger) {
    let l = &config.listeners;
    for (door, address) in [("kafka", l.kafka), ("quic", l.quic), ("http", l.http)] {
        let is_open = match address.ip() {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_loopback(),
        };
        if is_open {
            warn!(logger, "this door is reachable from other machines and security.authenticate is off";
                "door" => door, "address" => %address);
        }
    }
}

/// Clients are told to come to a door's address unless the settings say otherwise.
fn warn_about_addresses(config: &BrokerConfig, logger: &slog::Logger) {
    let l = &config.listeners;
    for (door, address, advertised) in [
        ("kafka", l.kafka, &l.advertised_kafka),
        ("quic", l.quic, &l.advertised_quic),
        ("peer", l.peer, &l.advertised_peer),
    ] {
        if address.ip().is_unspecified() && advertised.is_empty() {
            warn!(logger, "nobody can connect to the address that others are told: say where they find this node";
                "address" => %address, "setting" => format!("listeners.advertised_{door}"));
        }
    }
}

/// How a node has ended that did not fail.
enum Ended {
    InOrder,
    /// It goes on as another member when it is started again.
    Outdated,
}

async fn serve(config: BrokerConfig, logger: slog::Logger) -> Result<Ended, Failure> {
    let data = config.node.data.clone();
    // Whoever reads that it is ready may tell it to stop at once; and so may who does not want to wait for that.
    let mut told = std::pin::pin!(told_to_stop());
    let starting = Node::builder()
        .config(config)
        .logger(logger.clone())
        .start();
    let node = tokio::select! {
        node = starting => node,
        () = &mut told => {
            info!(logger, "told to stop before it was ready");
            return Ok(Ended::InOrder);
        }
    };
    let node = match node {
        Ok(node) => node,
        Err(StartError::Outdated) => return Ok(Ended::Outdated),
        Err(error) => return Err(Failure::new(error)),
    };
    let profile = write_profile(&node, &data)?;
    announce(&node, &data, &profile)?;
    let reason = tokio::select! {
        reason = node.failed() => Some(reason),
        () = told => None,
    };
    if reason.as_deref() == Some(OUTDATED_REASON) {
        return Ok(Ended::Outdated);
    }
    if let Some(reason) = reason {
        // A worker that hangs would hang the stop as well: the process supervisor starts the node again.
        return Err(Failure::new(format!("the node cannot go on: {reason}")));
    }
    let unclean = node.stop().await;
    if unclean.is_empty() {
        return Ok(Ended::InOrder);
    }
    let names: Vec<String> = unclean.iter().map(ToString::to_string).collect();
    Err(Failure::new(format!(
        "not closed in order, recovered at the next start: {}",
        names.join(", ")
    )))
}

/// Becomes the same command anew; why it cannot.
fn start_again() -> Failure {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "callboard".into());
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let error = Command::new(program).arg0(name).args(arguments).exec();
    Failure::new(format!(
        "{OUTDATED_REASON}; it could not by itself: {error}"
    ))
}

/// The profile with which commands find this node.
fn write_profile(node: &Node, data: &Path) -> Result<PathBuf, Failure> {
    let path = data.join(Profile::FILE_NAME);
    let fingerprint = node.fingerprint().map_err(|e: TlsError| Failure::new(e))?;
    let first_user = node.first_user();
    let profile = Profile {
        server: node.quic().to_string(),
        ca: Some(node.ca_pem().to_owned()),
        fingerprint: Some(fingerprint.to_string()),
        user: first_user.as_ref().map(|(user, _)| user.clone()),
        password: first_user.map(|(_, password)| password),
        certificate: None,
        kafka: Some(node.kafka().to_string()),
        http: Some(node.http().to_string()),
    };
    let text = toml::to_string(&profile).map_err(Failure::new)?;
    let temporary = path.with_extension("tmp");
    // It may hold a password.
    let mut options = std::fs::OpenOptions::new();
    let options = options.create(true).write(true).truncate(true).mode(0o600);
    options.open(&temporary)?.write_all(text.as_bytes())?;
    std::fs::rename(&temporary, &path)?;
    Ok(path)
}

/// One line for programs, the rest for people.
fn announce(node: &Node, data: &Path, profile: &Path) -> Result<(), Failure> {
    let (kafka, quic, http) = (node.kafka(), node.quic(), node.http());
    let mut out = std::io::stdout().lock();
    let peer = node
        .peer()
        .map_or_else(String::new, |peer| format!(" peer={peer}"));
    writeln!(
        out,
        "ready kafka={kafka} quic={quic} http={http}{peer} data={}",
        data.display()
    )?;
    out.flush()?;
    if output::for_a_person() {
        let fingerprint = node.fingerprint().map_err(|e: TlsError| Failure::new(e))?;
        output::note(format!(
            "\n  Kafka clients   bootstrap.servers={kafka}\n  Callboard's     {quic} (profile {})\n  \
             certificate     SHA-256 {fingerprint}\n  health          http://{http}/health\n  \
             metrics         http://{http}/metrics\n\n  \
             Next, in another terminal:  echo hello | callboard produce greetings\n",
            profile.display()
        ));
    }
    Ok(())
}
