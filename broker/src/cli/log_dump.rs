//! `callboard log`: looks into log files, without a node.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use callboard_common::record::Batch;
use callboard_common::record::file::{self, BatchReader};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Failure, for_a_person, line, table};
use super::time::readable;

/// Records are decompressed up to this.
const DECOMPRESS_LIMIT_BYTES: usize = 256 << 20;

/// Look into log files.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Print the batches of a segment, or of all segments of a partition's directory.
    Dump(Dump),
}

/// Print the batches of a segment, or of all segments of a partition's directory.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// A `.log` file or a partition's directory.
    path: PathBuf,
    /// Print the records too.
    #[arg(long)]
    records: bool,
    /// One JSON object per batch or record.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(Log::Dump(dump): &Log) -> Result<(), Failure> {
    let mut damaged = 0;
    for path in segments(&dump.path)? {
        damaged += usize::from(!segment(&path, dump)?);
    }
    if damaged > 0 {
        return Err(Failure::new(format!(
            "{damaged} files hold damaged batches"
        )));
    }
    Ok(())
}

fn segments(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = file::segments(path)?;
    if files.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no .log files",
            path.display()
        )));
    }
    Ok(files)
}

/// Prints one file batch by batch; whether all of it is whole.
fn segment(path: &Path, dump: &Dump) -> Result<bool, Failure> {
    let file =
        std::fs::File::open(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let mut reader = BatchReader::new(std::io::BufReader::with_capacity(1 << 20, file));
    let mut rows = Vec::new();
    let mut whole = true;
    while let Some(batch) = reader.next() {
        match batch {
            Ok((position, batch)) => show(&batch, position, dump, &mut rows)?,
            Err(error) => {
                whole = false;
                let (path, at) = (path.display(), reader.position());
                super::output::note(format!("{path} at byte {at}: {error}"));
            }
        }
    }
    if !dump.json && !dump.records {
        line(path.display())?;
        table(
            &[
                "base offset",
                "records",
                "leader epoch",
                "max time",
                "codec",
                "producer",
                "bytes",
                "position",
            ],
            &rows,
        )?;
    }
    Ok(whole)
}

fn show(
    batch: &Batch,
    position: u64,
    dump: &Dump,
    rows: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    let h = batch.header();
    let codec = h.compression().map_or("unknown", |c| c.name());
    if dump.records {
        for record in batch
            .records(DECOMPRESS_LIMIT_BYTES)
            .map_err(Failure::new)?
        {
            let text =
                |b: &Option<Bytes>| b.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
            if dump.json || !for_a_person() {
                line(
                    json!({"offset": record.offset.get(), "timestamp": record.timestamp,
                    "key": text(&record.key), "value": text(&record.value), "headers": record.headers.len()}),
                )?;
            } else {
                let (key, value) = (
                    text(&record.key).unwrap_or_default(),
                    text(&record.value).unwrap_or_default(),
                );
                line(format!(
                    "{} {} {key:?} {value:?}",
                    record.offset,
                    readable(record.timestamp)
                ))?;
            }
        }
    } else if dump.json {
        line(
            json!({"base_offset": h.base_offset, "last_offset": h.next_offset() - 1, "records": h.record_count,
            "leader_epoch": h.leader_epoch, "max_timestamp": h.max_timestamp, "codec": codec,
            "producer_id": h.producer_id, "producer_epoch": h.producer_epoch, "base_sequence": h.base_sequence,
            "size_bytes": batch.size_bytes(), "position": position}),
        )?;
    } else {
        let producer = if h.producer_id < 0 {
            "none".to_owned()
        } else {
            format!(
                "{}/{} from {}",
                h.producer_id, h.producer_epoch, h.base_sequence
            )
        };
        rows.push(vec![
            h.base_offset.to_string(),
            h.record_count.to_string(),
            h.leader_epoch.to_string(),
            readable(h.max_timestamp),
            codec.to_owned(),
            producer,
            batch.size_bytes().to_string(),
            position.to_string(),
        ]);
    }
    Ok(())
}
