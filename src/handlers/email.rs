//! `notify.email`: a mail through an SMTP server. A mail cannot be taken back and SMTP cannot dedupe, so a durable record
//! is written before and after the server takes it; when nobody knows whether it did, the job waits for a person.

use std::time::Duration;

use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use serde::{Deserialize, Serialize};

use super::mail_server::{self, Server, Settings};
use super::mailer::{Mailers, Sent};
use super::{Delivery, InboxMessage, settings, shared};
use crate::clock::wall;
use crate::job::handler::Effect;
use crate::job::{Context, Handler, Job, JobResult, Outcome};
use crate::names::shown;
use crate::retry::RetryPolicy;

/// Most recipients of one mail, `cc` included.
const MAX_RECIPIENTS: usize = 50;
/// Longest subject, in bytes: the longest line that mail allows.
const MAX_SUBJECT: usize = 998;
/// The name of the effect in the job's record.
const EFFECT: &str = "send";

/// A mail.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// One address, or several.
    pub to: OneOrMany,
    /// More of them, shown as copies.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub cc: OneOrMany,
    /// The sender; without it, the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where answers go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
    /// The same as HTML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
}

/// One text, or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

pub(super) fn check(settings: &serde_json::Value) -> Result<(), String> {
    let settings: Settings = settings::typed(settings)?;
    settings.from.as_deref().map(|from| mailbox("from", from)).transpose()?;
    mail_server::check(&settings)
}

impl Job for Email {
    const KIND: &'static str = "notify.email";

    fn retry() -> RetryPolicy {
        RetryPolicy::attempts(12)
    }

    fn timeout() -> Duration {
        Duration::from_secs(60)
    }
}

impl Handler for Email {
    async fn run(self, ctx: Context) -> JobResult {
        let settings: Settings = settings::read(&ctx)?;
        let delivery = shared::<Delivery>(&ctx)?;
        let inbox = match (&*delivery, &settings.smtp) {
            (Delivery::Inbox(inbox), None) => Some(inbox),
            _ => None,
        };
        let from = match (&self.from, &settings.from, inbox) {
            // What is wrong with the mail itself stays wrong; settings can be put right.
            (Some(from), ..) => match mailbox("from", from) {
                Ok(from) => from,
                Err(why) => return Ok(Outcome::Dead(why)),
            },
            (None, Some(from), _) => mailbox("from", from)
                .map_err(|error| format!("settings `handlers.\"{}\"`: {error}", Self::KIND))?,
            (None, None, Some(_)) => mailbox("from", "sluicegate <dev@localhost>")?,
            (None, None, None) => {
                return Err("no sender: give `from`, or set it in `[handlers.\"notify.email\"]`".into());
            }
        };
        let mail = match self.message(&ctx, from) {
            Ok(mail) => mail,
            Err(why) => return Ok(Outcome::Dead(why)),
        };
        if let Some(inbox) = inbox {
            inbox.keep(self.inbox_message(&ctx, &mail))?;
            return Ok(Outcome::Done);
        }
        let (server, mailers) = (Server::of(&settings)?, shared::<Mailers>(&ctx)?);
        match ctx.effects.begin(ctx.id, EFFECT).await? {
            Effect::Sent => return Ok(Outcome::Done),
            Effect::Unknown => {
                return Ok(Outcome::Uncertain(
                    "an earlier attempt may or may not have sent this mail".into(),
                ));
            }
            Effect::Fresh => {}
        }
        self.settle(&ctx, mailers.send(&server, &mail).await).await
    }
}

impl Email {
    async fn settle(&self, ctx: &Context, sent: Sent) -> JobResult {
        match sent {
            Sent::Accepted => {
                // The mail is out: a record that cannot be written now must not make it look like a failure.
                if let Err(error) = ctx.effects.sent(ctx.id, EFFECT).await {
                    tracing::warn!(job = %ctx.id, %error, "the mail was sent, but its record could not be completed");
                }
                Ok(Outcome::Done)
            }
            Sent::NotNow(why) => {
                ctx.effects.not_sent(ctx.id, EFFECT).await?;
                Err(why.into())
            }
            Sent::Never(why) => {
                ctx.effects.not_sent(ctx.id, EFFECT).await?;
                Ok(Outcome::Dead(why))
            }
            Sent::Unknown(why) => {
                Ok(Outcome::Uncertain(format!("{why}; the server may or may not have the mail")))
            }
        }
    }

    fn message(&self, ctx: &Context, from: Mailbox) -> Result<Message, String> {
        let (to, cc) = (self.to.all(), self.cc.all());
        if to.is_empty() {
            return Err("`to` names nobody".into());
        }
        if to.len() + cc.len() > MAX_RECIPIENTS {
            return Err(format!(
                "{} recipients are over the limit of {MAX_RECIPIENTS}: enqueue one job per recipient",
                to.len() + cc.len()
            ));
        }
        header("subject", &self.subject)?;
        if self.subject.len() > MAX_SUBJECT {
            return Err(format!(
                "`subject` of {} bytes is over the limit of {MAX_SUBJECT} bytes",
                self.subject.len()
            ));
        }
        let domain = from.email.domain().to_owned();
        let mut builder = Message::builder()
            .from(from)
            .subject(&self.subject)
            .message_id(Some(format!("<{}@{domain}>", ctx.id)));
        for address in to {
            builder = builder.to(mailbox("to", address)?);
        }
        for address in cc {
            builder = builder.cc(mailbox("cc", address)?);
        }
        if let Some(address) = &self.reply_to {
            builder = builder.reply_to(mailbox("reply_to", address)?);
        }
        let text = SinglePart::plain(lines(&self.text));
        let built = match &self.html {
            Some(html) => builder.multipart(
                MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(lines(html))),
            ),
            None => builder.singlepart(text),
        };
        built.map_err(|error| error.to_string())
    }

    fn inbox_message(&self, ctx: &Context, mail: &Message) -> InboxMessage {
        let text = String::from_utf8_lossy(&mail.formatted()).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        // A long header goes on in lines that begin with a space.
        let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let headers = head.split("\r\n").filter_map(|line| line.split_once(": "));
        InboxMessage {
            job: ctx.id,
            kind: Self::KIND.into(),
            at: wall(),
            to: self.to.all().iter().chain(self.cc.all()).cloned().collect::<Vec<_>>().join(", "),
            subject: self.subject.clone(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            // Text alone is shown as it is read, not as it is encoded on its way.
            body: if self.html.is_none() { self.text.clone() } else { body.to_owned() },
        }
    }
}

/// A value of a header has no line ends: they would begin another one.
fn header(field: &str, text: &str) -> Result<(), String> {
    match text.char_indices().find(|(_, c)| matches!(c, '\r' | '\n' | '\0')) {
        Some((at, c)) => Err(format!("`{field}` has an illegal character {c:?} at byte {at}")),
        None => Ok(()),
    }
}

/// Text with the line ends of mail and no others: servers differ in how they read a CR or LF alone, and the end of a mail
/// can be hidden in that. A NUL has no place in mail at all.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "\u{fffd}").replace('\n', "\r\n")
}

/// `ada@example.org`, or `Ada <ada@example.org>`.
fn mailbox(field: &str, text: &str) -> Result<Mailbox, String> {
    header(field, text)?;
    let bad = || format!("`{field}` `{}` is not a mail address", shown(text));
    if text.trim_start().starts_with('-') {
        return Err(bad());
    }
    match text.parse::<Address>() {
        Ok(address) => Ok(Mailbox::new(None, address)),
        Err(_) => text.parse::<Mailbox>().map_err(|_| bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h41_hostile_addresses_and_headers_are_refused_with_their_place() {
        for (field, text, wanted) in [
            ("to", "a@b.example\r\nBcc: x@y.example", "'\\r' at byte 11"),
            ("to", "a@b.example>,<c@d.example", "not a mail address"),
            ("to", "-oQ/tmp/x@example.org", "not a mail address"),
            ("to", "", "not a mail address"),
            ("from", "Ada\0 <a@b.example>", "'\\0' at byte 3"),
        ] {
            let error = mailbox(field, text).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
        for good in
            ["ada@example.org", "Ada Lovelace <ada@example.org>", "\"Lovelace, Ada\" <ada@example.org>"]
        {
            assert!(mailbox("to", good).is_ok(), "{good}");
        }
        assert!(header("subject", "a\nb").is_err());
    }
}
