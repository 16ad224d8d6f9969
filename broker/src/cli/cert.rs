//! `callboard cert`: the certificates by which the nodes of a cluster know each other, and their users.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use callboard_broker::node::{CA_FILE, NODE_FILE, NODE_KEY_FILE};
use callboard_broker::storage::disk::RealDisk;
use callboard_broker::storage::meta_properties::MetaProperties;
use callboard_client::Profile;
use callboard_common::transport::authority::Authority;
use callboard_common::{BrokerId, Uuid};
use clap::{Args, Subcommand};

use super::output::{self, Failure};

/// Where the authority is kept if nothing else is said.
const DIRECTORY: &str = "./callboard-cluster";
/// By these names a node is always reached.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CA_KEY_FILE: &str = "ca-key.pem";
const CLUSTER_FILE: &str = "cluster-id";
/// A user's certificate and its key.
const CLIENT_FILE: &str = "client.pem";
/// Settings of Kafka's tools.
const PROPERTIES_FILE: &str = "client.properties";

/// Make certificates for the nodes of a cluster and for their users.
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Make a cluster's certificate authority. Keep its key (ca-key.pem) where no node is.
    Init(Init),
    /// Make the certificate of one node, for its setting cluster.certificates.
    Node(NodeCert),
    /// Make the certificate of a user, who needs no password then, for nodes with the setting security.client_ca.
    Client(ClientCert),
}

/// See [`Cert::Init`].
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where to write ca.pem, ca-key.pem and cluster-id.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    out: PathBuf,
    /// Take the cluster's identifier from this data directory: a node that was alone grows into a cluster.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// See [`Cert::Node`].
#[derive(Debug, Args)]
pub(crate) struct NodeCert {
    /// The node's number (node.id).
    id: i32,
    /// Names and addresses under which clients reach it; localhost is always one.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Where the authority is.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    authority: PathBuf,
    /// Where to write ca.pem, node.pem and node-key.pem [default: node-ID below the authority].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// See [`Cert::Client`].
#[derive(Debug, Args)]
pub(crate) struct ClientCert {
    /// The user, as rules and quotas name it.
    user: String,
    /// Where the authority is.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    authority: PathBuf,
    /// Address of a node's QUIC door, for client.toml.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9192")]
    server: String,
    /// CA of the nodes' certificates, PEM file, if that is not this authority: a node that is alone makes its own,
    /// development-ca.pem in its data directory.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where to write ca.pem, client.pem, client.toml and client.properties [default: client-USER below the authority].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(cert: &Cert) -> Result<(), Failure> {
    match cert {
        Cert::Init(init) => {
            let id = match &init.data {
                Some(data) => cluster_of(data)?,
                None => Uuid::random().to_string(),
            };
            make_authority(&init.out, &id)?;
            let dir = init.out.display();
            output::note(format!("made the authority of cluster {id} in {dir}"));
            output::note(format!(
                "next, for each node:  callboard cert node ID --host HOST --authority {dir}"
            ));
        }
        Cert::Node(node) => {
            let out = node.out.clone();
            let out = out.unwrap_or_else(|| node_dir(&node.authority, BrokerId(node.id)));
            make_node(&node.authority, BrokerId(node.id), &node.hosts, &out)?;
            let (id, dir) = (node.id, out.display());
            output::note(format!("made the certificate of node {id} in {dir}"));
            output::note(format!(
                "next, on that node:  --set cluster.certificates={dir}"
            ));
        }
        Cert::Client(client) => {
            let out = make_client(client)?;
            let (user, dir, ca) = (&client.user, out.display(), client.authority.join(CA_FILE));
            output::note(format!("made the certificate of user {user} in {dir}"));
            output::note(format!(
                "next, on the nodes:  --set security.client_ca={}",
                ca.display()
            ));
            output::note(format!(
                "then:  callboard topic list --profile {dir}/{}   or Kafka's tools with {dir}/{PROPERTIES_FILE}",
                Profile::FILE_NAME
            ));
        }
    }
    Ok(())
}

fn cluster_of(data: &Path) -> Result<String, Failure> {
    let meta = MetaProperties::read(&RealDisk, data).map_err(Failure::new)?;
    let none = || Failure::new(format!("{} is no data directory of a node", data.display()));
    Ok(meta.ok_or_else(none)?.cluster_id)
}

fn node_dir(authority: &Path, broker: BrokerId) -> PathBuf {
    authority.join(format!("node-{broker}"))
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| Failure::new(format!("{} cannot be written: {e}", path.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = |e| Failure::new(format!("{} cannot be read: {e}", path.display()));
    fs::read_to_string(path).map_err(unreadable)
}

fn make_authority(dir: &Path, cluster_id: &str) -> Result<(), Failure> {
    let authority = Authority::create(cluster_id).map_err(Failure::new)?;
    fs::create_dir_all(dir)?;
    write_new(&dir.join(CA_KEY_FILE), authority.key_pem(), 0o600)?;
    write_new(&dir.join(CA_FILE), authority.ca_pem(), 0o644)?;
    write_new(&dir.join(CLUSTER_FILE), cluster_id, 0o644)
}

fn load(dir: &Path) -> Result<Authority, Failure> {
    let (id, ca) = (read(&dir.join(CLUSTER_FILE))?, read(&dir.join(CA_FILE))?);
    let key = read(&dir.join(CA_KEY_FILE))?;
    Authority::load(id.trim(), &ca, &key).map_err(Failure::new)
}

fn make_node(dir: &Path, broker: BrokerId, hosts: &[String], out: &Path) -> Result<(), Failure> {
    let authority = load(dir)?;
    let mut all = LOCAL.map(str::to_owned).to_vec();
    let others = hosts.iter().filter(|h| !LOCAL.contains(&h.as_str()));
    all.extend(others.cloned());
    let identity = authority.node(broker, &all).map_err(Failure::new)?;
    fs::create_dir_all(out)?;
    write_new(&out.join(NODE_KEY_FILE), &identity.key_pem, 0o600)?;
    write_new(&out.join(NODE_FILE), &identity.certificate_pem, 0o644)?;
    write_new(&out.join(CA_FILE), &identity.ca_pem, 0o644)
}

/// Makes a user's certificate with what clients need beside it; returns where.
fn make_client(client: &ClientCert) -> Result<PathBuf, Failure> {
    let authority = load(&client.authority)?;
    let name = format!("client-{}", client.user);
    let is_folder = !client.user.contains('/');
    let out = match &client.out {
        Some(out) => out.clone(),
        None if is_folder => client.authority.join(name),
        None => return Err(Failure::usage("a user with such a name needs --out DIR")),
    };
    let pem = authority.client(&client.user).map_err(Failure::new)?;
    let ca = match &client.ca {
        Some(ca) => read(ca)?,
        None => authority.ca_pem().to_owned(),
    };
    fs::create_dir_all(&out)?;
    let out = out.canonicalize()?;
    write_new(&out.join(CLIENT_FILE), &pem, 0o600)?;
    write_new(&out.join(CA_FILE), &ca, 0o644)?;
    let at = |file: &str| out.join(file).display().to_string();
    let properties = format!(
        "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\nssl.keystore.type=PEM\n\
         ssl.keystore.location={}\n",
        at(CA_FILE),
        at(CLIENT_FILE)
    );
    write_new(&out.join(PROPERTIES_FILE), &properties, 0o644)?;
    let profile = Profile {
        server: client.server.clone(),
        ca: Some(ca),
        certificate: Some(pem),
        ..Profile::default()
    };
    let profile = toml::to_string(&profile).map_err(Failure::new)?;
    write_new(&out.join(Profile::FILE_NAME), &profile, 0o600)?;
    Ok(out)
}

/// The certificates of a member of a cluster on this machine, made if they are not there; returns their directory.
pub(super) fn of_local_member(broker: BrokerId) -> Result<PathBuf, Failure> {
    let dir = Path::new(DIRECTORY);
    fs::create_dir_all(dir)?;
    // Members that are started at the same time make one authority.
    let lock = fs::File::create(dir.join(".lock"))?;
    lock.lock()?;
    if !dir.join(CLUSTER_FILE).exists() {
        make_authority(dir, &Uuid::random().to_string())?;
    }
    let out = node_dir(dir, broker);
    if !out.join(CA_FILE).exists() {
        make_node(dir, broker, &[], &out)?;
    }
    Ok(out)
}
