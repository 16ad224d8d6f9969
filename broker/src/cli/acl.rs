//! `callboard acl`.

use callboard_client::protocol::security::{
    Acl, AclFilter, CLUSTER_NAME, Operation, PatternFilter, PatternKind, Permission, ResourceKind,
};
use clap::{Args, Subcommand};
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, line, note, table};

/// Say who may do what; it counts once `security.authorize` is on.
#[derive(Debug, Subcommand)]
pub(crate) enum AclCommand {
    /// Add rules, one per operation.
    Add {
        /// Who: a user's name, or * for all.
        #[arg(long)]
        user: String,
        /// What: read, write, create, delete, alter, describe, describe-configs, alter-configs,
        /// idempotent-write or all; may be given several times.
        #[arg(long = "operation", required = true, value_parser = operation)]
        operations: Vec<Operation>,
        #[command(flatten)]
        on: On,
        /// The name is how names begin.
        #[arg(long)]
        prefix: bool,
        /// From which address only.
        #[arg(long, default_value = "*")]
        host: String,
        /// Forbid instead of allow; that beats every rule that allows.
        #[arg(long)]
        deny: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// List rules.
    List {
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete all rules of a user on something.
    Delete {
        /// Who.
        #[arg(long)]
        user: String,
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        connect: Connect,
    },
}

/// To what.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct On {
    /// This topic, or * for all.
    #[arg(long)]
    topic: Option<String>,
    /// This group, or * for all.
    #[arg(long)]
    group: Option<String>,
    /// The cluster.
    #[arg(long)]
    cluster: bool,
}

impl On {
    fn resource(&self) -> (ResourceKind, &str) {
        match (&self.topic, &self.group) {
            (Some(topic), _) => (ResourceKind::Topic, topic),
            (None, Some(group)) => (ResourceKind::Group, group),
            (None, None) => (ResourceKind::Cluster, CLUSTER_NAME),
        }
    }
}

fn operation(text: &str) -> Result<Operation, String> {
    let plain = |name: &str| name.replace('-', "").to_lowercase();
    let found = Operation::ALL
        .iter()
        .find(|o| plain(o.name()) == plain(text));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = Operation::ALL.iter().map(|o| o.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

pub(crate) async fn run(command: AclCommand) -> Result<(), Failure> {
    match command {
        AclCommand::Add {
            user,
            operations,
            on,
            prefix,
            host,
            deny,
            connect,
        } => {
            let (resource, name) = on.resource();
            let client = connect.client().await?;
            for operation in &operations {
                let acl = Acl {
                    resource,
                    pattern: if prefix {
                        PatternKind::Prefixed
                    } else {
                        PatternKind::Literal
                    },
                    name: name.into(),
                    principal: format!("User:{user}").into(),
                    host: host.as_str().into(),
                    operation: *operation,
                    permission: if deny {
                        Permission::Deny
                    } else {
                        Permission::Allow
                    },
                };
                client.admin().create_acl(acl).await?;
            }
            client.close().await;
            note(format!("{} rules added", operations.len()));
        }
        AclCommand::List { json, connect } => {
            let client = connect.client().await?;
            let acls = client.admin().acls(filter(None, None, None)).await?;
            client.close().await;
            show(&acls, json)?;
        }
        AclCommand::Delete { user, on, connect } => {
            let (resource, name) = on.resource();
            let client = connect.client().await?;
            let filter = filter(Some(resource), Some(name), Some(&format!("User:{user}")));
            let gone = client.admin().delete_acls(filter).await?;
            client.close().await;
            note(format!("{} rules deleted", gone.len()));
        }
    }
    Ok(())
}

fn filter(
    resource: Option<ResourceKind>,
    name: Option<&str>,
    principal: Option<&str>,
) -> AclFilter {
    AclFilter {
        resource,
        pattern: PatternFilter::Any,
        name: name.map(Into::into),
        principal: principal.map(Into::into),
        host: None,
        operation: None,
        permission: None,
    }
}

fn show(acls: &[Acl], json: bool) -> Result<(), Failure> {
    if json {
        let one = |a: &Acl| {
            json!({"principal": a.principal.as_str(), "permission": a.permission.name(),
                "operation": a.operation.name(), "resource": a.resource.name(), "name": a.name.as_str(),
                "pattern": a.pattern.name(), "host": a.host.as_str()})
        };
        return line(serde_json::Value::from(
            acls.iter().map(one).collect::<Vec<_>>(),
        ));
    }
    let row = |a: &Acl| {
        let texts = [
            &*a.principal,
            a.permission.name(),
            a.operation.name(),
            a.resource.name(),
            &*a.name,
            a.pattern.name(),
            &*a.host,
        ];
        texts.map(str::to_owned).to_vec()
    };
    let header = [
        "principal",
        "permission",
        "operation",
        "resource",
        "name",
        "pattern",
        "host",
    ];
    table(&header, &acls.iter().map(row).collect::<Vec<_>>())
}
