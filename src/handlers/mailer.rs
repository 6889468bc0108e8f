//! Hands mails to an SMTP server, over connections that are used again, and says honestly what became of one.
//!
//! The library's own pool is not used: it takes a connection back whose conversation was cut off, and then reads the
//! answers to one mail as those to the next; and it does not say whether a mail was begun when something broke.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::settings::read_secret;
use crate::clock::{human, instant};
use crate::location::without_password;

/// No more connections than this are kept for later.
const MAX_IDLE: usize = 20;
/// A server may have several addresses, and the first of them may be dead.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);
/// Servers hang up on idle connections after some minutes.
const MAX_IDLE_FOR: Duration = Duration::from_secs(60);

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

/// The servers, by their settings.
#[derive(Debug)]
pub(super) struct Mailers {
    servers: Mutex<HashMap<Settings, Arc<Server>>>,
    deadline: Duration,
}

/// One mail server, and the connections to it that nobody uses now.
pub(super) struct Server {
    address: (String, u16),
    starttls: StartTls,
    /// TLS from the first byte.
    wrapped: bool,
    credentials: Option<Credentials>,
    idle: Mutex<Vec<(Instant, AsyncSmtpConnection)>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.address).finish()
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
    /// `deadline`: for the server to let a mail in, and again for it to take the mail.
    pub(super) fn new(deadline: Duration) -> Self {
        Self { servers: Mutex::default(), deadline }
    }

    pub(super) fn get(&self, settings: &Settings) -> Result<Arc<Server>, String> {
        let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = known.get(settings) {
            return Ok(Arc::clone(server));
        }
        let server = Arc::new(Server::new(settings)?);
        known.insert(settings.clone(), Arc::clone(&server));
        Ok(server)
    }

    pub(super) async fn send(&self, server: &Server, mail: &Message) -> Sent {
        // Until there is a connection nothing is said of the mail: whatever goes wrong, it was not sent, and it is not
        // the mail that was refused.
        let connection = match timeout(self.deadline, server.connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Sent::NotNow(format!("cannot reach the mail server: {error}")),
            Err(_) => {
                let limit = human(self.deadline);
                return Sent::NotNow(format!("cannot reach the mail server: not ready within {limit}"));
            }
        };
        match timeout(self.deadline, server.hand_over(connection, mail)).await {
            Ok(sent) => sent,
            Err(_) => {
                Sent::Unknown(format!("the mail server did not confirm within {}", human(self.deadline)))
            }
        }
    }
}

impl Server {
    fn new(settings: &Settings) -> Result<Self, String> {
        let text =
            settings.smtp.as_deref().ok_or("no mail server: set `smtp` in `[handlers.\"notify.email\"]`")?;
        let bad = |why: &str| format!("`smtp` `{}`: {why}", without_password(text));
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if !matches!(url.scheme(), "smtp" | "smtps") || host.is_empty() {
            return Err(bad("expected `smtp://user@host:587` or `smtps://user@host:465`"));
        }
        if url.password().is_some() {
            return Err(bad("a password does not belong here: use `password_file`"));
        }
        let wrapped = url.scheme() == "smtps";
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let starttls = settings.starttls.unwrap_or(if local { StartTls::None } else { StartTls::Required });
        let port = url.port().unwrap_or(match (wrapped, starttls) {
            (true, _) => SUBMISSIONS_PORT,
            (false, StartTls::None) => SMTP_PORT,
            (false, _) => SUBMISSION_PORT,
        });
        let credentials = match (&settings.password_file, url.username()) {
            (Some(path), user) => {
                let password = read_secret("password_file", path)?.reveal().to_owned();
                Some(Credentials::new(decoded(user), password))
            }
            (None, "") => None,
            (None, _) => return Err(bad("there is a user but no `password_file`")),
        };
        Ok(Self { address: (host, port), starttls, wrapped, credentials, idle: Mutex::default() })
    }

    /// One that answers: an idle one, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Error> {
        while let Some(mut connection) = self.idle_one() {
            if connection.test_connected().await {
                return Ok(connection);
            }
        }
        let (host, port) = &self.address;
        let tls = || TlsParameters::new(host.clone());
        let wrapper = self.wrapped.then(tls).transpose()?;
        let hello = ClientId::default();
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            (host.as_str(), *port),
            Some(CONNECT_WITHIN),
            &hello,
            wrapper,
            None,
        )
        .await?;
        let upgrade = match self.starttls {
            StartTls::Required => !self.wrapped,
            StartTls::Opportunistic => connection.can_starttls(),
            StartTls::None => false,
        };
        if upgrade {
            connection.starttls(tls()?, &hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// Whoever drops this on its way drops the connection with it.
    async fn hand_over(&self, mut connection: AsyncSmtpConnection, mail: &Message) -> Sent {
        let error = match connection.send(mail.envelope(), &mail.formatted()).await {
            Ok(_) => {
                let mut idle = self.idle();
                if idle.len() < MAX_IDLE {
                    idle.push((instant(), connection));
                }
                return Sent::Accepted;
            }
            Err(error) => error,
        };
        // A reply is certain: the server said no. So is what this side refuses to say.
        if error.is_permanent() {
            Sent::Never(format!("the mail server refused it: {error}"))
        } else if error.is_transient() {
            Sent::NotNow(format!("the mail server cannot take it now: {error}"))
        } else if error.is_client() {
            Sent::NotNow(format!("the mail server cannot take such a mail: {error}"))
        } else {
            Sent::Unknown(format!("the connection to the mail server broke: {error}"))
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, AsyncSmtpConnection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_one(&self) -> Option<AsyncSmtpConnection> {
        let (now, mut idle) = (instant(), self.idle());
        idle.retain(|(since, _)| now.duration_since(*since) < MAX_IDLE_FOR);
        idle.pop().map(|(_, connection)| connection)
    }
}

/// Says what is wrong with settings.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    if settings.smtp.is_some() { Server::new(settings).map(drop) } else { Ok(()) }
}

/// A user as the server knows it: in a URL, `@` is `%40`.
fn decoded(user: &str) -> String {
    let text = format!("u={}", user.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(text.as_bytes()).next().map(|(_, user)| user.into_owned()).unwrap_or_default()
}
