//! The built-in job kinds.

use crate::worker::{Registry, RegistryError};

/// Where what jobs send really goes.
#[derive(Debug, Clone, Default)]
pub enum Delivery {
    /// To the receiver that the job names.
    #[default]
    Real,
    /// To the local inbox of `dev`.
    Inbox(std::sync::Arc<dyn Inbox>),
}

/// Where `dev` keeps what jobs sent. Implemented by `http::inbox`.
pub trait Inbox: std::fmt::Debug + Send + Sync {
    /// Keeps one message.
    ///
    /// # Errors
    /// When it cannot be kept; the job is then retried.
    fn keep(&self, message: InboxMessage) -> std::io::Result<()>;
}

/// One message in the local inbox.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct InboxMessage {
    /// The job that sent it.
    pub job: crate::ids::JobId,
    /// The kind of that job.
    pub kind: String,
    /// When it arrived.
    pub at: crate::clock::Timestamp,
    /// To whom: a URL or mail addresses.
    pub to: String,
    /// Subject line or event type.
    pub subject: String,
    /// Headers as sent.
    pub headers: Vec<(String, String)>,
    /// The body as sent.
    pub body: String,
}

/// Adds the built-in kinds to a registry.
///
/// # Errors
/// When the app registered one of their names.
pub fn register(registry: &mut Registry, delivery: Delivery) -> Result<(), RegistryError> {
    let _ = (registry, delivery);
    Ok(())
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

/// Checks the settings of a built-in kind.
///
/// # Errors
/// Says what is wrong.
pub fn check_settings(kind: &str, settings: &serde_json::Value) -> Result<(), String> {
    let _ = (kind, settings);
    Ok(())
}

/// Every setting of the built-in kinds.
#[must_use]
pub fn docs() -> &'static [SettingDoc] {
    &[]
}
