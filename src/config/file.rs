//! The configuration file: TOML, every key known, every fault with its file, line and column.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key, QUEUE_KEYS, Takes, nearest};
use super::{ConfigError, Origin};
use crate::names::{Queue, shown};

/// No configuration is larger.
const MAX_FILE: u64 = 1024 * 1024;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Values by path, as text.
    pub(super) values: Vec<(&'static Key, String, Origin)>,
    /// `[queues.NAME]`: queue, key, value.
    pub(super) queues: Vec<(Queue, &'static Key, String, Origin)>,
    /// `[handlers.KIND]` tables.
    pub(super) handlers: BTreeMap<String, (serde_json::Value, Origin)>,
}

pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let failed = |error: std::io::Error| {
        ConfigError::plain(format!("cannot read the configuration `{}`: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigError::plain(format!(
            "the configuration `{}` is larger than {MAX_FILE} bytes",
            path.display()
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        ConfigError::plain(format!(
            "{}: not UTF-8 at byte {}",
            path.display(),
            error.utf8_error().valid_up_to()
        ))
    })?;
    Reader { path, text: &text }.read()
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn at(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        // A byte order mark takes no room on the screen.
        let line_start = before.rsplit('\n').next().unwrap_or_default().trim_start_matches('\u{feff}');
        let column = line_start.chars().count() + 1;
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn fault(&self, span: &Range<usize>, message: impl std::fmt::Display) -> ConfigError {
        ConfigError::plain(format!("{}: {message}", self.at(span)))
    }

    fn read(&self) -> Result<File, ConfigError> {
        let root = DeTable::parse(self.text).map_err(|error| {
            self.fault(&error.span().unwrap_or(0..0), crate::names::escaped(error.message().trim()))
        })?;
        let mut file = File::default();
        self.table("", root.get_ref(), &mut file)?;
        Ok(file)
    }

    fn table(&self, prefix: &str, table: &DeTable<'_>, file: &mut File) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            if path == "handlers" {
                self.handlers(value, file)?;
                continue;
            }
            if path == "queues" {
                self.queues(value, file)?;
                continue;
            }
            match (Key::find(&path), value.get_ref()) {
                (Some(key), _) => {
                    let text = self.scalar(key, value)?;
                    key.check(&text)
                        .map_err(|error| self.fault(&value.span(), format!("`{path}`: {error}")))?;
                    file.values.push((key, text, self.at(&value.span())));
                }
                (None, DeValue::Table(inner))
                    if KEYS.iter().any(|key| key.path.starts_with(&format!("{path}."))) =>
                {
                    self.table(&path, inner, file)?;
                }
                (None, _) => return Err(self.unknown(&path, &name.span())),
            }
        }
        Ok(())
    }

    fn unknown(&self, path: &str, span: &Range<usize>) -> ConfigError {
        let error = self.fault(span, format!("unknown key `{}`", shown(path)));
        let sections = KEYS
            .iter()
            .filter_map(|key| key.path.split_once('.').map(|(section, _)| section))
            .chain(["handlers", "queues"]);
        match nearest(path, KEYS.iter().map(|key| key.path).chain(sections)) {
            Some(near) => {
                error.hint(format!("did you mean `{near}`? `sluicegate config docs` lists every key"))
            }
            None => error.hint("`sluicegate config docs` lists every key"),
        }
    }

    /// A value as the text that the key's check reads.
    fn scalar(&self, key: &Key, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        let wrong = || {
            let given = value.get_ref().type_str();
            self.fault(&value.span(), format!("`{}`: expected {}, got {given}", key.path, key.expects()))
        };
        match (value.get_ref(), key.takes) {
            (DeValue::String(text), takes)
                if !matches!(takes, Takes::Count(..) | Takes::Switch | Takes::Queues) =>
            {
                Ok(text.to_string())
            }
            (DeValue::Integer(number), Takes::Count(..) | Takes::Span(..)) if number.radix() == 10 => {
                Ok(number.as_str().to_owned())
            }
            (DeValue::Boolean(on), Takes::Switch) => Ok(on.to_string()),
            (DeValue::Array(names), Takes::Queues) => {
                let names: Option<Vec<&str>> = names.iter().map(|name| name.get_ref().as_str()).collect();
                names.map(|names| names.join(",")).ok_or_else(wrong)
            }
            (DeValue::Array(words), Takes::Command) => {
                let words: Option<Vec<&str>> = words.iter().map(|word| word.get_ref().as_str()).collect();
                words.map(|words| serde_json::json!(words).to_string()).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    fn queues(&self, value: &Spanned<DeValue<'_>>, file: &mut File) -> Result<(), ConfigError> {
        let expected = |span: &Range<usize>| {
            self.fault(span, "`queues`: expected one table per queue, such as `[queues.mail]`")
        };
        let DeValue::Table(queues) = value.get_ref() else { return Err(expected(&value.span())) };
        for (name, keys) in queues {
            let DeValue::Table(keys) = keys.get_ref() else { return Err(expected(&keys.span())) };
            let queue = Queue::new(name.get_ref()).map_err(|error| {
                self.fault(&name.span(), format!("{error}; a queue with dots needs quotes"))
            })?;
            for (word, value) in keys {
                let path = format!("queues.{queue}.{}", word.get_ref());
                let Some(key) = QUEUE_KEYS.iter().find(|key| key.word() == word.get_ref()) else {
                    let known: Vec<&str> = QUEUE_KEYS.iter().map(Key::word).collect();
                    return Err(self
                        .fault(&word.span(), format!("unknown key `{}`", shown(&path)))
                        .hint(format!("a queue takes {}", known.join(", "))));
                };
                let text = self.scalar(key, value)?;
                key.check(&text).map_err(|error| self.fault(&value.span(), format!("`{path}`: {error}")))?;
                file.queues.push((queue.clone(), key, text, self.at(&value.span())));
            }
        }
        Ok(())
    }

    fn handlers(&self, value: &Spanned<DeValue<'_>>, file: &mut File) -> Result<(), ConfigError> {
        let expected = |span: &Range<usize>| {
            self.fault(span, "`handlers`: expected one table per kind, such as `[handlers.\"notify.email\"]`")
        };
        let DeValue::Table(kinds) = value.get_ref() else { return Err(expected(&value.span())) };
        for (kind, settings) in kinds {
            let DeValue::Table(_) = settings.get_ref() else { return Err(expected(&settings.span())) };
            crate::names::Kind::new(kind.get_ref()).map_err(|error| {
                self.fault(&kind.span(), format!("{error}; a kind with dots needs quotes"))
            })?;
            let json = self.json(settings)?;
            file.handlers.insert(kind.get_ref().to_string(), (json, self.at(&kind.span())));
        }
        Ok(())
    }

    /// Settings of a kind are its own affair: they pass as JSON.
    fn json(&self, value: &Spanned<DeValue<'_>>) -> Result<serde_json::Value, ConfigError> {
        let number =
            |text: &str| text.replace('_', "").parse::<serde_json::Number>().map(serde_json::Value::Number);
        Ok(match value.get_ref() {
            DeValue::String(text) => serde_json::Value::String(text.to_string()),
            DeValue::Boolean(on) => serde_json::Value::Bool(*on),
            DeValue::Integer(n) => {
                number(n.as_str()).map_err(|_| self.fault(&value.span(), "not a plain decimal number"))?
            }
            DeValue::Float(n) => {
                number(n.as_str()).map_err(|_| self.fault(&value.span(), "not a plain decimal number"))?
            }
            DeValue::Datetime(time) => serde_json::Value::String(time.to_string()),
            DeValue::Array(items) => {
                serde_json::Value::Array(items.iter().map(|item| self.json(item)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => {
                let entries =
                    table.iter().map(|(name, item)| Ok((name.get_ref().to_string(), self.json(item)?)));
                serde_json::Value::Object(entries.collect::<Result<_, ConfigError>>()?)
            }
        })
    }
}
