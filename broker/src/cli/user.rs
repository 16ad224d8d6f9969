//! `callboard user`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use callboard_client::Text;
use callboard_client::protocol::security::ScramMechanism;
use clap::Subcommand;
use serde_json::json;

use super::connect::Connect;
use super::output::{Failure, line, note, table};

/// Add, list and delete users.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user, or give it a new password, which is read from standard input or a file.
    Add {
        /// Its name.
        user: String,
        /// File with the password; a line break at its end does not count.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        connect: Connect,
    },
    /// List users.
    List {
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connect: Connect,
    },
    /// Delete a user; its open connections go on.
    Delete {
        /// Its name.
        user: String,
        #[command(flatten)]
        connect: Connect,
    },
}

pub(crate) async fn run(user: User) -> Result<(), Failure> {
    match user {
        User::Add {
            user,
            password_file,
            connect,
        } => {
            let password = password(password_file)?;
            let client = connect.client().await?;
            client.admin().set_password(&user, &password).await?;
            client.close().await;
            note(format!(
                "user {user} has this password now, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"
            ));
        }
        User::List { json, connect } => {
            let client = connect.client().await?;
            let users = client.admin().users().await?;
            client.close().await;
            show(&users, json)?;
        }
        User::Delete { user, connect } => {
            let client = connect.client().await?;
            client.admin().delete_user(&user).await?;
            client.close().await;
            note(format!("user {user} deleted"));
        }
    }
    Ok(())
}

fn password(file: Option<PathBuf>) -> Result<String, Failure> {
    let text = match file {
        Some(path) => std::fs::read_to_string(&path)
            .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?,
        None => {
            if std::io::stdin().is_terminal() {
                note("the password, then Ctrl-D (it is shown; a file or a pipe is better):");
            }
            let mut text = String::new();
            let _bytes = std::io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() || password.contains('\0') {
        return Err(Failure::usage(
            "a password has at least one character and no NUL",
        ));
    }
    Ok(password.to_owned())
}

fn show(users: &[(Text, Vec<ScramMechanism>)], json: bool) -> Result<(), Failure> {
    let mechanisms = |m: &[ScramMechanism]| m.iter().map(|m| m.name()).collect::<Vec<_>>();
    if json {
        let one = |(user, m): &(Text, Vec<ScramMechanism>)| json!({"user": user.as_str(), "mechanisms": mechanisms(m)});
        return line(serde_json::Value::from(
            users.iter().map(one).collect::<Vec<_>>(),
        ));
    }
    let row =
        |(user, m): &(Text, Vec<ScramMechanism>)| vec![user.to_string(), mechanisms(m).join(", ")];
    table(
        &["user", "mechanisms"],
        &users.iter().map(row).collect::<Vec<_>>(),
    )
}
