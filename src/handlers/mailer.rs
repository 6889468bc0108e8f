//! Hands mails to an SMTP server, over connections that it keeps, and says honestly what became of one.
//!
//! The library's own pool is not used. It takes a connection back whose mail was cut off (a time-out, a cancelled job),
//! and the next mail then reads the answers to the one before: a refused mail counts as sent. It also does not say how
//! far a mail came, and waits for ever for an answer. Here a connection belongs to one mail, goes back only after its
//! 250, and is closed otherwise; each of the three steps has a deadline, and only the last one can end uncertainly.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::Message;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};

use super::mail_server::{Server, StartTls};
use crate::clock::instant;

/// How long each step may take. Together they stay below the kind's time-out.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connecting, TLS and the password.
    session: Duration,
    /// Sender and recipients.
    envelope: Duration,
    /// The content, and the answer to it.
    content: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [session, envelope, content] = [15, 10, 30].map(Duration::from_secs);
        Self { session, envelope, content }
    }
}

/// One address of the server, so that one that does not answer leaves time for the next.
const DIAL: Duration = Duration::from_secs(5);
/// Whether a kept connection still works.
const ALIVE: Duration = Duration::from_secs(3);
/// No connection is kept unused for longer, and no more than so many per server.
const KEEP: Duration = Duration::from_secs(60);
const MAX_KEPT: usize = 20;

/// What became of a mail.
#[derive(Debug)]
pub(super) enum Sent {
    /// The server took it.
    Accepted,
    /// It certainly did not take it, and may take it later.
    NotNow(String),
    /// It certainly did not take it, and never will.
    Never(String),
    /// The content was handed over and no answer came: it may or may not have taken it.
    Unknown(String),
}

/// The connections that wait for the next mail, by server.
#[derive(Default)]
pub(super) struct Mailers {
    kept: Mutex<HashMap<Server, Vec<(Instant, AsyncSmtpConnection)>>>,
    limits: Limits,
}

impl Mailers {
    pub(super) async fn send(&self, server: &Server, mail: &Message) -> Sent {
        // Whatever goes wrong here is between us and the server, and not the mail's fault, 5xx included.
        let mut connection = match limited(self.limits.session, self.connection(server)).await {
            Ok(connection) => connection,
            Err(error) => return Sent::NotNow(format!("cannot reach the mail server: {}", error.text)),
        };
        if let Some(why) = cannot_carry(&connection, mail) {
            self.keep(server, connection);
            return Sent::Never(why);
        }
        if let Err(error) = limited(self.limits.envelope, announce(&mut connection, mail)).await {
            return match error.reply {
                Some(5) => Sent::Never(format!("the mail server refused it: {}", error.text)),
                Some(_) => Sent::NotNow(format!("the mail server cannot take it now: {}", error.text)),
                None => {
                    Sent::NotNow(format!("the connection broke before the mail was sent: {}", error.text))
                }
            };
        }
        let content = mail.formatted();
        match limited(self.limits.content, async { Ok(connection.message(&content).await?) }).await {
            Ok(_) => {
                self.keep(server, connection);
                Sent::Accepted
            }
            Err(error) => match error.reply {
                Some(5) => Sent::Never(format!("the mail server refused it: {}", error.text)),
                Some(_) => Sent::NotNow(format!("the mail server cannot take it now: {}", error.text)),
                None => Sent::Unknown(format!("the connection broke before its answer: {}", error.text)),
            },
        }
    }

    async fn connection(&self, server: &Server) -> Result<AsyncSmtpConnection, Broke> {
        while let Some((since, mut connection)) = self.kept(server) {
            if since.elapsed() < KEEP
                && tokio::time::timeout(ALIVE, connection.test_connected()).await.unwrap_or(false)
            {
                return Ok(connection);
            }
        }
        connect(server).await
    }

    fn kept(&self, server: &Server) -> Option<(Instant, AsyncSmtpConnection)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get_mut(server)?.pop()
    }

    fn keep(&self, server: &Server, connection: AsyncSmtpConnection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.entry(server.clone()).or_default();
        kept.retain(|(since, _)| since.elapsed() < KEEP);
        if kept.len() < MAX_KEPT {
            kept.push((instant(), connection));
        }
    }
}

async fn connect(server: &Server) -> Result<AsyncSmtpConnection, Broke> {
    // Read each time: a password that was changed holds from the next connection on.
    let password = server.password()?;
    let tls = match (server.implicit_tls, server.starttls) {
        (false, StartTls::None) => None,
        _ => Some(TlsParameters::new(server.host.clone())?),
    };
    let hello = ClientId::default();
    let address = (server.host.as_str(), server.port);
    let wrap = if server.implicit_tls { tls.clone() } else { None };
    let mut connection = AsyncSmtpConnection::connect_tokio1(address, Some(DIAL), &hello, wrap, None).await?;
    if let (false, Some(tls)) = (server.implicit_tls, tls)
        && (server.starttls == StartTls::Required || connection.can_starttls())
    {
        connection.starttls(tls, &hello).await?;
    }
    if let Some(password) = password {
        if server.starttls == StartTls::Opportunistic && !connection.is_encrypted() {
            return Err("it does not offer STARTTLS, and the password is not sent in the clear (`starttls = \"none\"` allows that)".to_owned().into());
        }
        let credentials = Credentials::new(server.user.clone(), password.reveal().to_owned());
        connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
    }
    Ok(connection)
}

/// A mail that the server says it cannot carry would be refused every time.
fn cannot_carry(connection: &AsyncSmtpConnection, mail: &Message) -> Option<String> {
    let lacks = |extension| !connection.server_info().supports_feature(extension);
    if international(mail) && lacks(Extension::SmtpUtfEight) {
        return Some("the mail server cannot take addresses beyond ASCII (no SMTPUTF8)".to_owned());
    }
    (!mail.formatted().is_ascii() && lacks(Extension::EightBitMime))
        .then(|| "the mail server cannot take mails beyond ASCII (no 8BITMIME)".to_owned())
}

fn international(mail: &Message) -> bool {
    let (from, to) = (mail.envelope().from(), mail.envelope().to());
    from.into_iter().chain(to).any(|address| !AsRef::<str>::as_ref(address).is_ascii())
}

/// Everything up to the content. Until the server has read the line that ends the content, it has taken nothing.
async fn announce(connection: &mut AsyncSmtpConnection, mail: &Message) -> Result<(), Broke> {
    let mut parameters = Vec::new();
    if international(mail) {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !mail.formatted().is_ascii() {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    connection.command(Mail::new(mail.envelope().from().cloned(), parameters)).await?;
    for address in mail.envelope().to() {
        connection.command(Rcpt::new(address.clone(), vec![])).await?;
    }
    connection.command(Data).await?;
    Ok(())
}

/// A step that failed.
struct Broke {
    /// The first digit of the server's answer, if it gave one.
    reply: Option<u16>,
    text: String,
}

impl From<Error> for Broke {
    fn from(error: Error) -> Self {
        Self { reply: error.status().map(|code| u16::from(code) / 100), text: error.to_string() }
    }
}

impl From<String> for Broke {
    fn from(text: String) -> Self {
        Self { reply: None, text }
    }
}

async fn limited<T>(limit: Duration, step: impl Future<Output = Result<T, Broke>>) -> Result<T, Broke> {
    let late = || Err(format!("no answer within {} s", limit.as_secs_f64()).into());
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::super::mail_server::Settings;
    use super::*;

    /// A server that serves one connection for each entry: it answers so many lines properly and says no more; after a
    /// whole mail it closes.
    async fn server(connections: &'static [usize]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let smtp = Some(format!("smtp://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            let mut silent = Vec::new();
            for &answers in connections {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let script = ["220 hello", "250 hello", "250 sender", "250 to", "354 go on", "250 stored"];
                for answer in script.iter().take(answers) {
                    stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                    let mut line = String::new();
                    // The content ends with a lone dot; everything else is one line.
                    while stream.read_line(&mut line).await.unwrap_or(0) > 0
                        && answer.starts_with("354")
                        && line != ".\r\n"
                    {
                        line.clear();
                    }
                }
                if answers < script.len() {
                    silent.push(stream);
                }
            }
            std::future::pending::<()>().await;
        });
        Server::of(&Settings { smtp, ..Settings::default() }).unwrap()
    }

    fn mail() -> Message {
        let (from, to) = ("a@example.com".parse().unwrap(), "b@example.org".parse().unwrap());
        Message::builder().from(from).to(to).body("text".to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_certain_before_the_content_and_uncertain_after() {
        let [session, envelope, content] = [200; 3].map(Duration::from_millis);
        let limits = Limits { session, envelope, content };
        for (connections, certain) in
            [(&[0], true), (&[1], true), (&[2], true), (&[3], true), (&[4], true), (&[5], false)]
        {
            let mailers = Mailers { limits, ..Mailers::default() };
            let sent = mailers.send(&server(connections).await, &mail()).await;
            match (&sent, certain) {
                (Sent::NotNow(why), true) | (Sent::Unknown(why), false) => {
                    assert!(why.contains("no answer within 0.2 s"), "{why}");
                }
                _ => panic!("silent after {connections:?} answers: {sent:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_died_is_replaced() {
        let (server, mailers) = (server(&[6, 6]).await, Mailers::default());
        for _ in 0..2 {
            let sent = mailers.send(&server, &mail()).await;
            assert!(matches!(sent, Sent::Accepted), "{sent:?}");
        }
    }
}
