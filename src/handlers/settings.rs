//! What the kinds can be told in `[handlers."KIND"]`, and how secrets are kept out of sight.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use crate::job::Context;
use crate::job::handler::JobError;
use crate::names::shown;

/// A text that is never printed.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Read by way of a value of any type: the usual error of a wrong type would print what it found.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a secret has to be a text")),
        }
    }
}

/// The setting `secrets`; for the same reason not simply a list.
pub(super) fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Array(list) => {
            list.into_iter().map(|one| Secret::deserialize(one).map_err(D::Error::custom)).collect()
        }
        _ => Err(D::Error::custom("`secrets` has to be a list of texts")),
    }
}

/// One setting of a kind.
#[derive(Debug, Clone, Copy)]
pub struct SettingDoc {
    /// The kind.
    pub kind: &'static str,
    /// The setting's name.
    pub setting: &'static str,
    /// Its default, in words.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// Every setting of the built-in kinds.
#[must_use]
pub fn docs() -> &'static [SettingDoc] {
    const fn doc(
        kind: &'static str,
        setting: &'static str,
        default: &'static str,
        doc: &'static str,
    ) -> SettingDoc {
        SettingDoc { kind, setting, default, doc }
    }
    const DOCS: &[SettingDoc] = &[
        doc("notify.webhook", "secret", "none", "signing secret, `whsec_` and base64 (16 bytes or more)"),
        doc("notify.webhook", "secret_file", "none", "a file with it"),
        doc(
            "notify.webhook",
            "secrets",
            "none",
            "several, the current one first: every one signs, so that receivers can rotate",
        ),
        doc(
            "notify.webhook",
            "allow",
            "none",
            "hosts (`host` or `host:port`) that may be private, plain http and on any port",
        ),
        doc(
            "notify.webhook",
            "endpoints",
            "none",
            "named receivers: `endpoints.NAME = { url, secret | secret_file | secrets }`",
        ),
        doc(
            "notify.email",
            "smtp",
            "none",
            "the mail server: `smtp://user@host:587` or `smtps://user@host:465`",
        ),
        doc("notify.email", "password_file", "none", "a file with its password"),
        doc(
            "notify.email",
            "starttls",
            "required (none on loopback)",
            "`required`, `opportunistic` or `none`, for `smtp://`",
        ),
        doc("notify.email", "from", "none", "the sender of mails that name none"),
    ];
    DOCS
}

/// Checks the settings of a built-in kind; those of an app's own kinds are its own affair.
///
/// # Errors
/// Says what is wrong.
pub fn check_settings(kind: &str, settings: &serde_json::Value) -> Result<(), String> {
    match kind {
        "echo" if settings.as_object().is_some_and(serde_json::Map::is_empty) => Ok(()),
        "echo" => Err("`echo` has no settings".into()),
        "notify.webhook" => super::webhook::check(settings),
        "notify.email" => super::email::check(settings),
        _ => Ok(()),
    }
}

/// Refuses what is not among the known names; the library's own error would not say which those are.
pub(super) fn check_names(settings: &serde_json::Value, known: &[&str]) -> Result<(), String> {
    let mut names = settings.as_object().into_iter().flat_map(serde_json::Map::keys);
    match names.find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown setting `{}`: expected one of {}", shown(name), known.join(", "))),
        None => Ok(()),
    }
}

/// The settings of a kind, typed; an error names the kind.
pub(super) fn read<T: DeserializeOwned>(ctx: &Context) -> Result<T, JobError> {
    typed(&ctx.settings).map_err(|error| format!("settings `handlers.\"{}\"`: {error}", ctx.kind).into())
}

/// Settings, typed. An error says what was expected and not what is there: that may be a secret in the wrong place.
pub(super) fn typed<T: DeserializeOwned>(settings: &serde_json::Value) -> Result<T, String> {
    T::deserialize(settings).map_err(|error| {
        let text = error.to_string();
        let shows = ["invalid type: ", "invalid value: ", "unknown variant "];
        match text.rfind(", expected ").and_then(|at| text.get(at..)) {
            Some(wanted) if shows.iter().any(|start| text.starts_with(start)) => {
                format!("a value is not what it has to be{wanted}")
            }
            _ => text,
        }
    })
}

/// The content of a file with a secret, without white space around it.
pub(super) fn read_secret(setting: &str, path: &str) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("`{setting}`: cannot read `{path}`: {error}"))?;
    Ok(Secret::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_documented_is_known_and_the_rest_is_refused() {
        for doc in docs() {
            // A value that no setting has: the name is known when the complaint is about the value.
            let error = check_settings(doc.kind, &serde_json::json!({ doc.setting: 1.5 })).unwrap_err();
            assert!(!error.contains("unknown"), "{}: {error}", doc.setting);
            let error = check_settings(doc.kind, &serde_json::json!({ "typo": 1 })).unwrap_err();
            assert!(error.contains("`typo`") && error.contains(doc.setting), "{error}");
        }
        assert_eq!(check_settings("billing.send-invoice", &serde_json::json!({ "any": 1 })), Ok(()));
    }
}
