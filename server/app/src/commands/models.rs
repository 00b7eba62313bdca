//! `pith models`

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Failure;
use crate::hub::{Entry, Hub, catalogue::Kind, error::megabytes};

/// Arguments of `pith models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read every file and compare its sha256; exit 1 if one differs
    #[arg(long)]
    verify: bool,
}

/// A model as it is listed.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    aliases: &'a [String],
    kind: Kind,
    about: &'a str,
    bytes: u64,
    present: bool,
    /// Only of one that is present, and only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    path: PathBuf,
    licence: &'a str,
}

pub(super) fn run(args: ModelsArgs) -> Result<ExitCode, Failure> {
    let hub = Hub::from_env()?;
    let rows: Vec<Row<'_>> = hub
        .catalogue()
        .models()
        .map(|entry| row(&hub, entry, args.verify))
        .collect::<Result<_, _>>()?;
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &rows)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "{}", table(&rows))?;
    }
    let damaged: Vec<&str> =
        rows.iter().filter(|row| row.verified == Some(false)).map(|row| row.name).collect();
    if damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let names = damaged.join(" ");
    Err(Failure::new(format!("damaged: {names}"))
        .hint(format!("`pith pull {names}` fetches what is missing")))
}

fn row<'a>(hub: &Hub, entry: &'a Entry, verify: bool) -> Result<Row<'a>, Failure> {
    let present = hub.cache().has(entry);
    let begun = hub.cache().folder(entry).is_dir();
    let verified = if verify && begun { Some(hub.verify(entry)?) } else { None };
    let path = match entry.files.first() {
        Some(file) => hub.cache().path(entry, file),
        None => hub.cache().folder(entry),
    };
    let Entry { name, aliases, kind, about, licence, .. } = entry;
    Ok(Row {
        name,
        aliases,
        kind: *kind,
        about,
        bytes: entry.bytes(),
        present,
        verified,
        path,
        licence,
    })
}

fn table(rows: &[Row<'_>]) -> String {
    let heads = ["NAME", "KIND", "SIZE", "PRESENT", "LICENCE", "PATH"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let present = match (row.present, row.verified) {
            (_, Some(true)) => "verified",
            (_, Some(false)) => "damaged",
            (true, None) => "yes",
            (false, None) => "no",
        };
        let name = row.aliases.first().map_or(row.name, String::as_str);
        [
            name.to_owned(),
            row.kind.name().to_owned(),
            megabytes(row.bytes),
            present.to_owned(),
            row.licence.to_owned(),
            row.path.display().to_string(),
        ]
    });
    let lines: Vec<[String; 6]> = std::iter::once(heads).chain(cells).collect();
    let mut widths = [0; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}
