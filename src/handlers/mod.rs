//! The built-in job kinds.
//!
//! - `echo`: for trying things out
//! - `webhook`: `notify.webhook`, signed as Standard Webhooks are; `outbound` sends it, `dialer` connects,
//!   `guard` says where it may go, `address` which addresses are public
//! - `email`: `notify.email`; `mailer` hands it to an SMTP server, `mail_server` says to which
//! - `settings`: what they can be told, and how secrets are kept

mod address;
mod dialer;
mod echo;
mod email;
pub mod guard;
mod mail_server;
mod mailer;
mod outbound;
mod settings;
mod webhook;

use std::sync::Arc;

use crate::worker::{Registry, RegistryError};

pub use echo::Echo;
pub use email::Email;
pub use settings::{SettingDoc, check_settings, docs};
pub use webhook::Webhook;

/// Where what jobs send really goes.
#[derive(Debug, Clone, Default)]
pub enum Delivery {
    /// To the receiver that the job names.
    #[default]
    Real,
    /// To the local inbox of `dev`, unless the receiver is configured: a mail server is set, or the webhook's host is
    /// allowed.
    Inbox(Arc<dyn Inbox>),
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
    registry.share(delivery).share(outbound::Outbound::new()).share(mailer::Mailers::default());
    registry.add::<Echo>()?.add::<Webhook>()?.add::<Email>()?;
    Ok(())
}

/// What `register` shared. An app that calls a handler without it has made a mistake, and is told so.
fn shared<T: Send + Sync + 'static>(
    ctx: &crate::job::Context,
) -> Result<Arc<T>, crate::job::handler::JobError> {
    ctx.shared
        .get::<T>()
        .ok_or_else(|| "the built-in kinds were not registered with `handlers::register`".into())
}
