//! Generates the Kafka messages from the schemas in `src/kafka/schema` (notation: `src/kafka/mod.rs`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/kafka/generate/mod.rs"]
mod generate;

fn main() {
    let folder = Path::new("src/kafka/schema");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=src/kafka/generate");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the schema folder is there")
        .map(|e| e.expect("readable").path())
        .collect();
    paths.sort();
    let (mut code, mut names) = (String::new(), String::new());
    for path in paths {
        let text = fs::read_to_string(&path).expect("a schema is text");
        let messages =
            generate::schema::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for message in messages {
            writeln!(code, "{}", generate::rust::message(&message)).expect("a string takes all");
            names.push_str(&message.name);
            names.push(' ');
        }
    }
    code.push_str(&generate::rust::every_message(&names));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
        .join("kafka_messages.rs");
    fs::write(out, code).expect("the output folder is writable");
}
