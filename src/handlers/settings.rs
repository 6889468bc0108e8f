//! What the kinds can be told in `[handlers."KIND"]`, and how secrets are kept out of sight.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::job::Context;
use crate::job::handler::JobError;

/// A text that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
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
            "hosts (`host` or `host:port`) that may be private and plain http",
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

/// The settings of a kind, typed; an error names the kind.
pub(super) fn read<T: DeserializeOwned>(ctx: &Context) -> Result<T, JobError> {
    typed(&ctx.settings).map_err(|error| format!("settings `handlers.\"{}\"`: {error}", ctx.kind).into())
}

/// Settings, typed. An error says what was expected and not what was there: that may be a secret in the wrong place.
pub(super) fn typed<T: DeserializeOwned>(settings: &serde_json::Value) -> Result<T, String> {
    T::deserialize(settings).map_err(|error| {
        let text = error.to_string();
        let hides = ["invalid type: ", "invalid value: ", "unknown variant "];
        match (hides.iter().any(|start| text.starts_with(start)), text.rfind(", expected ")) {
            (true, Some(at)) => format!("a value of the wrong sort{}", text.get(at..).unwrap_or_default()),
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
