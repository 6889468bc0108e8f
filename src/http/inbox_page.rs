//! `/dev/inbox`: a page without script, made on the server. Everything on it came from jobs, so everything is text.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::CONTENT_SECURITY_POLICY;
use serde_json::json;

use super::inbox::FileInbox;
use super::problem::Problem;
use super::reply::{self, Reply};
use super::routes::{Do, Query};
use crate::handlers::InboxMessage;
use crate::ids::JobId;

const POLICY: &str =
    "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const STYLE: &str = include_str!("inbox.css");
/// Messages on a page, unless asked otherwise.
const PAGE: usize = 100;
/// Characters of a body that the page shows; the JSON has all.
const SHOWN: usize = 32 * 1024;

/// Answers the three paths of the inbox.
pub(crate) async fn answer(
    inbox: Option<&Arc<FileInbox>>,
    what: Do,
    query: Option<&str>,
) -> Result<Reply, Problem> {
    let inbox = Arc::clone(inbox.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "NO_INBOX", "there is no local inbox here: jobs send for real")
            .hint("`sluicegate dev` has one")
    })?);
    if what == Do::InboxStyle {
        return Ok(reply::body(StatusCode::OK, "text/css; charset=utf-8", STYLE));
    }
    let query = Query::read(query, &["job", "limit"])?;
    let job: Option<JobId> = query.parsed("job")?;
    let limit = query.limit(PAGE, super::inbox::KEEP)?;
    let total = inbox.count();
    let messages = tokio::task::spawn_blocking(move || inbox.list(job, limit))
        .await
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INBOX_UNREADABLE", error.to_string())
        })?;
    Ok(match what {
        Do::InboxJson => reply::json(StatusCode::OK, &json!({ "messages": messages, "total": total })),
        _ => {
            let page = page(&messages, job, total);
            let reply = reply::body(StatusCode::OK, "text/html; charset=utf-8", page);
            reply::set(reply, CONTENT_SECURITY_POLICY, POLICY)
        }
    })
}

/// A text that came from outside, as HTML text or attribute value.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                '\r' => {}
                // Direction overrides and the like must not make one text look like another.
                _ => f.write_str(&crate::names::escaped(c.encode_utf8(&mut [0; 4])))?,
            }
        }
        Ok(())
    }
}

fn page(messages: &[InboxMessage], job: Option<JobId>, total: usize) -> String {
    let mut html = String::with_capacity(2048);
    // Writing to a `String` cannot fail.
    let _ok = write_page(&mut html, messages, job, total);
    html
}

fn write_page(html: &mut String, messages: &[InboxMessage], job: Option<JobId>, total: usize) -> fmt::Result {
    html.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Inbox · sluicegate dev</title>\n<link rel=\"stylesheet\" href=\"/dev/inbox.css\">\n</head>\n<body>\n\
         <header>\n<h1>Inbox</h1>\n\
         <p>What jobs sent. Nothing here left this machine.</p>\n<nav><a href=\"/dev/inbox\">Reload</a> \
         <a href=\"/dev/inbox.json\">JSON</a></nav>\n</header>\n<main>\n",
    );
    match job {
        Some(job) => writeln!(
            html,
            "<p class=\"count\">{} of job <code>{job}</code> · <a href=\"/dev/inbox\">show all {total}</a></p>",
            plural(messages.len())
        )?,
        None if messages.len() < total => {
            writeln!(html, "<p class=\"count\">The newest {} of {total}</p>", messages.len())?;
        }
        None => writeln!(html, "<p class=\"count\">{}, newest first</p>", plural(total))?,
    }
    if messages.is_empty() {
        html.push_str(
            "<p class=\"empty\">Nothing yet. Mails, webhooks and purges sent by jobs land here:</p>\n\
             <pre class=\"empty\">sluicegate job enqueue notify.email '{\"to\":\"ada@example.org\",\"template\":\"incident\"}'</pre>\n",
        );
    }
    for message in messages {
        write_message(html, message)?;
    }
    html.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn plural(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn write_message(html: &mut String, message: &InboxMessage) -> fmt::Result {
    let InboxMessage { job, kind, at, to, subject, headers, body } = message;
    let title = if subject.is_empty() { "(no subject)" } else { subject };
    writeln!(
        html,
        "<details>\n<summary><span class=\"kind\">{}</span> <span class=\"title\">{}</span> \
         <span class=\"to\">{}</span> <time datetime=\"{at}\">{at}</time></summary>",
        Text(kind),
        Text(title),
        Text(to),
    )?;
    writeln!(
        html,
        "<p class=\"job\">Job <code>{job}</code> · <a href=\"/dev/inbox?job={job}\">all of this job</a> · \
         <a href=\"/v1/jobs/{job}\">its record</a></p>"
    )?;
    html.push_str("<table>\n");
    for (name, value) in headers {
        writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", Text(name), Text(value))?;
    }
    html.push_str("</table>\n");
    let (shown, cut) = match body.char_indices().nth(SHOWN) {
        Some((at, _)) => (body.get(..at).unwrap_or_default(), "\n… (cut; the JSON has all of it)"),
        None => (body.as_str(), ""),
    };
    if !body.is_empty() {
        writeln!(html, "<pre>{}{cut}</pre>", Text(shown))?;
    }
    html.push_str("</details>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn h34_hostile_content_is_text() {
        let evil =
            "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;\u{202e}\x1b[2J</pre></details>";
        let message = InboxMessage {
            job: JobId::new(),
            kind: evil.into(),
            at: Timestamp::from_ms(0),
            to: evil.into(),
            subject: evil.into(),
            headers: vec![(evil.into(), evil.into())],
            body: evil.into(),
        };
        let html = page(&[message], None, 1);
        for (tag, times) in [("<script", 0), ("<img", 0), ("</pre>", 1), ("</details>", 1), ("style=", 0)] {
            assert_eq!(html.matches(tag).count(), times, "{tag}: {html}");
        }
        assert!(!html.contains('\u{202e}') && !html.contains('\x1b'));
        assert_eq!(html.matches("&lt;script&gt;alert(1)").count(), 6);
    }
}
