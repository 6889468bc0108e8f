//! Which mail server: the settings of `notify.email`, read and checked.

use std::net::IpAddr;

use serde::Deserialize;
use url::Url;

use super::settings::{Secret, read_secret};
use crate::location::without_password;

/// The settings of `notify.email`.
#[derive(Debug, Clone, Default, Deserialize)]
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

/// A mail server and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS from the first byte (`smtps`).
    pub(super) implicit_tls: bool,
    pub(super) starttls: StartTls,
    pub(super) user: String,
    password_file: Option<String>,
}

impl Server {
    pub(super) fn of(settings: &Settings) -> Result<Self, String> {
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
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(bad("nothing may follow the port"));
        }
        let user = plain(url.username()).ok_or_else(|| bad("its user is not UTF-8"))?;
        match (&settings.password_file, user.is_empty()) {
            (Some(_), true) => return Err(bad("there is a `password_file` but no user: `smtp://user@…`")),
            (None, false) => return Err(bad("there is a user but no `password_file`")),
            _ => {}
        }
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let implicit_tls = url.scheme() == "smtps";
        let starttls = settings.starttls.unwrap_or(if local { StartTls::None } else { StartTls::Required });
        let usual = match (implicit_tls, starttls) {
            (true, _) => 465,
            (false, StartTls::Required) => 587,
            (false, _) => 25,
        };
        let (port, password_file) = (url.port().unwrap_or(usual), settings.password_file.clone());
        Ok(Self { host, port, implicit_tls, starttls, user, password_file })
    }

    pub(super) fn password(&self) -> Result<Option<Secret>, String> {
        self.password_file.as_deref().map(|path| read_secret("password_file", path)).transpose()
    }
}

/// A user as the server knows it: in a URL its `@` is written `%40`.
fn plain(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        out.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

/// Says what is wrong with settings.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    if settings.smtp.is_some() { Server::of(settings)?.password().map(drop) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn server(smtp: &str, password_file: Option<&str>) -> Result<Server, String> {
        Server::of(&Settings {
            smtp: Some(smtp.into()),
            password_file: password_file.map(Into::into),
            ..Settings::default()
        })
    }

    #[test]
    fn ports_and_tls_follow_from_the_url() {
        for (smtp, port, implicit_tls, starttls) in [
            ("smtp://mail.example.org", 587, false, StartTls::Required),
            ("smtps://mail.example.org", 465, true, StartTls::Required),
            ("smtp://mail.example.org:2525", 2525, false, StartTls::Required),
            ("smtp://127.0.0.1", 25, false, StartTls::None),
            ("smtp://[::1]:1025", 1025, false, StartTls::None),
        ] {
            let server = server(smtp, None).unwrap();
            assert_eq!((server.port, server.implicit_tls, server.starttls), (port, implicit_tls, starttls));
        }
        let with_user = server("smtp://ada%40example.org@mail.example.org", Some("/etc/x")).unwrap();
        assert_eq!(with_user.user, "ada@example.org");
    }

    #[test]
    fn urls_that_are_not_mail_servers_are_refused_without_their_password() {
        for (smtp, wanted) in [
            ("http://mail.example.org", "expected `smtp://"),
            ("smtp:mail", "expected `smtp://"),
            ("smtp://ada:s3cret@mail.example.org", "password_file"),
            ("smtp://ada@mail.example.org", "no `password_file`"),
            ("smtp://mail.example.org/x", "may follow"),
            ("smtp://mail.example.org?tls=none", "may follow"),
            ("mail.example.org", "relative URL"),
        ] {
            let error = server(smtp, None).unwrap_err();
            assert!(error.contains(wanted) && !error.contains("s3cret"), "{smtp}: {error}");
        }
        assert!(server("smtp://mail.example.org", Some("/etc/x")).unwrap_err().contains("no user"));
    }
}
