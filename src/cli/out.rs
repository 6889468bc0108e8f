//! The one door for output: data to standard output, everything else to standard error. What comes from a store or a
//! caller is escaped before it can reach a terminal.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{Cell, ContentArrangement, Table};
use serde::Serialize;

use super::error::CliError;
use crate::clock::{Timestamp, human};
use crate::config;
use crate::names::{escaped, is_hostile};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For people, with more columns.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Jsonl,
    /// Ids and names only.
    Name,
    /// Nothing.
    None,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    Auto,
    Always,
    Never,
}

/// How times are written in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Times {
    Relative,
    Iso,
    Unix,
}

/// Where everything goes.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) format: Format,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    headers: bool,
    times: Times,
    colour: bool,
}

impl Out {
    pub(super) fn new(
        format: Format,
        headers: bool,
        times: Times,
        colour: Colour,
        quiet: bool,
        verbose: bool,
    ) -> Self {
        let forced = config::variable("CLICOLOR_FORCE")
            .or_else(|| config::variable("FORCE_COLOR"))
            .is_some_and(|text| text != "0");
        let refused =
            config::variable("NO_COLOR").is_some() || config::variable("TERM").as_deref() == Some("dumb");
        let colour = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => !refused && (forced || std::io::stdout().is_terminal()),
        };
        Self { format, quiet, verbose, headers, times, colour }
    }

    pub(super) fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Text for standard output, with a line end.
    pub(super) fn line(&self, text: impl std::fmt::Display) -> Result<(), CliError> {
        if self.format != Format::None {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()?;
        }
        Ok(())
    }

    /// One JSON document, indented for `json`, on a line for `jsonl`.
    pub(super) fn json<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let text = if self.format == Format::Json {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        self.line(escaped_json(&text.map_err(|error| CliError::new(super::exit::Exit::Error, error))?))
    }

    /// A document for programs, if there is one: what was for people has been said.
    pub(super) fn json_or_nothing(&self, value: Option<serde_json::Value>) -> super::error::CliResult {
        value.map_or(Ok(()), |value| self.json(&value))?;
        Ok(super::exit::Exit::Ok)
    }

    /// The same on one line in any case.
    pub(super) fn json_line(&self, value: &serde_json::Value) -> Result<(), CliError> {
        self.line(escaped_json(&value.to_string()))
    }

    /// A message for the person, on standard error.
    pub(super) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            to_stderr(&escaped_lines(&text.to_string()));
        }
    }

    /// The next useful command; only for people.
    pub(super) fn next(&self, command: impl std::fmt::Display) {
        if self.is_for_people() {
            self.note(format!("next: {command}"));
        }
    }

    /// More, for those who asked.
    pub(super) fn detail(&self, text: impl std::fmt::Display) {
        if self.verbose {
            self.note(text);
        }
    }

    /// A table for people; cells are escaped.
    pub(super) fn table(&self, headers: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.headers {
            table.set_header(headers.iter().map(|header| Cell::new(header.to_uppercase())));
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| Cell::new(escaped(cell))));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        text.lines().try_for_each(|line| self.line(line.trim_end()))
    }

    /// A time as the flags want it.
    pub(super) fn time(&self, at: Timestamp, now: Timestamp) -> String {
        match self.times {
            Times::Iso => at.to_string(),
            Times::Unix => (at.ms() / 1_000).to_string(),
            Times::Relative if at > now => format!("in {}", human(at.since(now))),
            Times::Relative => format!("{} ago", human(now.since(at))),
        }
    }

    /// A line that begins with a mark. Only what follows is escaped: the mark's own colour must reach the terminal.
    pub(super) fn marked(&self, good: bool, text: impl std::fmt::Display) -> Result<(), CliError> {
        self.line(format!("{} {}", self.mark(good), escaped(&text.to_string())))
    }

    /// A good or bad mark.
    pub(super) fn mark(&self, good: bool) -> &'static str {
        match (good, self.colour) {
            (true, true) => "\x1b[32m✔\x1b[0m",
            (false, true) => "\x1b[31m✘\x1b[0m",
            (true, false) => "✔",
            (false, false) => "✘",
        }
    }
}

/// JSON may hold raw what a terminal obeys: C1 controls, DEL, bidirectional overrides. They become `\u009b`.
fn escaped_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            // Outside of strings only, where it is white space.
            c if c < ' ' => out.push(' '),
            c if is_hostile(c) => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// Escapes every line of a text, keeping the line ends.
pub(super) fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// A reader of standard error that went away is nobody's problem.
pub(super) fn to_stderr(text: &str) {
    if writeln!(std::io::stderr().lock(), "{text}").is_err() {
        // there is nowhere left to say so
    }
}

/// Prints an error. What hints call `sluicegate` is this program, whatever its name.
pub(super) fn fail(error: &CliError, program: &str) {
    if error.exit == super::exit::Exit::Pipe {
        return;
    }
    to_stderr(&format!("error: {}", escaped_lines(&error.message)));
    if !error.hints.is_empty() {
        to_stderr("");
    }
    for hint in &error.hints {
        to_stderr(&format!(
            "hint: {}",
            escaped_lines(&hint.replace("`sluicegate ", &format!("`{program} ")))
        ));
    }
}
