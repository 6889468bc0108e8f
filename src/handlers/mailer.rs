//! Hands mails to an SMTP server, over pooled connections, and says honestly what became of one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use serde::Deserialize;
use url::Url;

use super::settings::read_secret;
use crate::location::without_password;

/// How the mail server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    pub(super) smtp: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) starttls: Option<StartTls>,
    pub(super) from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StartTls {
    Required,
    Opportunistic,
    None,
}

type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// One pool of connections per server.
#[derive(Debug, Default)]
pub(super) struct Mailers {
    pools: Mutex<HashMap<Settings, Transport>>,
    /// A pool starts a task when it is dropped, and panics where it cannot: the worker's last part may be a plain thread.
    runtime: OnceLock<tokio::runtime::Handle>,
}

impl Drop for Mailers {
    fn drop(&mut self) {
        let _entered = self.runtime.get().map(tokio::runtime::Handle::enter);
        self.pools.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What became of a mail.
#[derive(Debug)]
pub(super) enum Sent {
    /// The server took it.
    Accepted,
    /// It certainly did not take it, and may take it later.
    NotNow(String),
    /// It certainly did not take it, and never will.
    Never(String),
    /// The connection broke at a point where it may or may not have taken it.
    Unknown(String),
}

impl Mailers {
    pub(super) fn get(&self, settings: &Settings) -> Result<Transport, String> {
        self.runtime.get_or_init(tokio::runtime::Handle::current);
        let mut known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = known.get(settings) {
            return Ok(transport.clone());
        }
        let transport: Transport = server(settings)?.build();
        known.insert(settings.clone(), transport.clone());
        Ok(transport)
    }
}

/// How the server is reached. Building the transport itself starts a task, and is for who is about to send.
fn server(settings: &Settings) -> Result<AsyncSmtpTransportBuilder, String> {
    let text =
        settings.smtp.as_deref().ok_or("no mail server: set `smtp` in `[handlers.\"notify.email\"]`")?;
    let bad = |why: &str| format!("`smtp` `{}`: {why}", without_password(text));
    let mut url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "smtp" | "smtps") || url.host().is_none() {
        return Err(bad("expected `smtp://user@host:587` or `smtps://user@host:465`"));
    }
    if url.password().is_some() {
        return Err(bad("a password does not belong here: use `password_file`"));
    }
    let user = url.username().to_owned();
    url.set_username("").map_err(|()| bad("it cannot be used"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let starttls = settings.starttls.unwrap_or(if local { StartTls::None } else { StartTls::Required });
    if url.scheme() == "smtp" {
        match starttls {
            StartTls::Required => url.set_query(Some("tls=required")),
            StartTls::Opportunistic => url.set_query(Some("tls=opportunistic")),
            StartTls::None => url.set_query(None),
        }
    }
    let mut builder = Transport::from_url(url.as_str()).map_err(|error| bad(&error.to_string()))?;
    if let Some(path) = &settings.password_file {
        builder = builder
            .credentials(Credentials::new(user, read_secret("password_file", path)?.reveal().to_owned()));
    } else if !user.is_empty() {
        return Err(bad("there is a user but no `password_file`"));
    }
    Ok(builder.timeout(Some(Duration::from_secs(30))).pool_config(PoolConfig::new().max_size(20)))
}

/// Says what is wrong with settings.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    if settings.smtp.is_some() { server(settings).map(drop) } else { Ok(()) }
}

pub(super) async fn send(transport: &Transport, mail: Message) -> Sent {
    let error = match transport.send(mail).await {
        Ok(_) => return Sent::Accepted,
        Err(error) => error,
    };
    let text = match std::error::Error::source(&error) {
        Some(cause) if !error.to_string().contains(&cause.to_string()) => format!("{error}: {cause}"),
        _ => error.to_string(),
    };
    // A reply is certain: the server said no. So is a connection or TLS session that never came to be; the library has
    // no question for the former, only a name.
    if error.is_permanent() {
        Sent::Never(format!("the mail server refused it: {text}"))
    } else if error.is_transient() {
        Sent::NotNow(format!("the mail server cannot take it now: {text}"))
    } else if error.is_tls() || error.is_client() || error.to_string().starts_with("Connection error") {
        Sent::NotNow(format!("cannot reach the mail server: {text}"))
    } else {
        Sent::Unknown(format!("the connection to the mail server broke: {text}"))
    }
}
