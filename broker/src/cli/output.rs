//! What people and programs see: tables, JSON, errors that say what to do.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use callboard_client::BrokerId;
use comfy_table::{ContentArrangement, Table, presets};

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            code: 1,
        }
    }

    /// The arguments make no sense.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            code: 2,
        }
    }

    /// The user ended it.
    pub(crate) fn interrupted() -> Self {
        Self {
            message: String::new(),
            code: 130,
        }
    }

    /// Prints the error; a reader that has gone away is no error.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            // If standard error is gone nobody can be told.
            let _gone = writeln!(io::stderr(), "callboard: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<callboard_client::Error> for Failure {
    fn from(error: callboard_client::Error) -> Self {
        Self::new(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `callboard consume ... | head` ends well.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                message: String::new(),
                code: 0,
            };
        }
        Self::new(error)
    }
}

/// Whether a person looks at standard output.
pub(crate) fn for_a_person() -> bool {
    io::stdout().is_terminal()
}

/// Prints rows: a table on a terminal, tab-separated lines elsewhere.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if for_a_person() {
        let mut table = Table::new();
        let _same = table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic);
        let _same = table.set_header(header);
        let _same = table.add_rows(rows);
        writeln!(out, "{table}")?;
    } else {
        writeln!(out, "{}", header.join("\t"))?;
        for row in rows {
            writeln!(out, "{}", row.join("\t"))?;
        }
    }
    Ok(())
}

/// Nodes for a program.
pub(crate) fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|b| b.0).collect()
}

/// Nodes for a person.
pub(crate) fn joined(brokers: &[BrokerId]) -> String {
    let names: Vec<String> = brokers.iter().map(ToString::to_string).collect();
    names.join(",")
}

/// Prints one line.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Says something to a person without disturbing what a program reads.
pub(crate) fn note(text: impl Display) {
    // If standard error is gone nobody can be told.
    let _gone = writeln!(io::stderr(), "{text}");
}
