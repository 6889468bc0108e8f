//! `notify.webhook`: an event posted to a receiver, signed as the Standard Webhooks specification says (headers
//! `webhook-id`, `webhook-timestamp`, `webhook-signature`; HMAC-SHA256 over `id.timestamp.body`). The id is the job's, the
//! same at every attempt, so a receiver can tell a repetition.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;

use super::guard::{self, Destination};
use super::outbound::Outbound;
use super::settings::{self, Secret, read_secret};
use super::{Delivery, InboxMessage, shared};
use crate::clock::{Timestamp, wall};
use crate::job::handler::JobError;
use crate::job::{Context, Handler, Job, JobResult, Outcome};
use crate::names::shown;
use crate::retry::RetryPolicy;

/// A receiver that says "at once" would burn all attempts within a second.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(5);
/// No receiver puts a job off for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Signs what lands in the local inbox when no secret is set: it protects nothing, and says so in the message.
const DEV_SECRET: &str = "whsec_c2x1aWNlZ2F0ZSBkZXYgaW5ib3ggb25seQ==";

/// Posts `{"type", "timestamp", "data"}` to `url`, or to a configured `endpoint`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name of a configured receiver, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The type of the event, such as `incident.created`.
    #[serde(rename = "type", default = "default_type")]
    pub event: String,
    /// Any JSON.
    #[serde(default = "nothing")]
    pub data: Box<RawValue>,
}

fn default_type() -> String {
    "notification".into()
}

fn nothing() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    #[serde(flatten)]
    secrets: Secrets,
    allow: Vec<String>,
    endpoints: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Secrets {
    secret: Option<Secret>,
    secret_file: Option<String>,
    #[serde(deserialize_with = "settings::secrets")]
    secrets: Vec<Secret>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    url: String,
    #[serde(flatten)]
    secrets: Secrets,
}

impl Secrets {
    /// The keys, the current one first.
    fn keys(&self) -> Result<Vec<Vec<u8>>, String> {
        let file = self.secret_file.as_ref().map(|path| read_secret("secret_file", path)).transpose()?;
        self.secret.iter().chain(&file).chain(&self.secrets).map(key).collect()
    }
}

fn key(secret: &Secret) -> Result<Vec<u8>, String> {
    let bytes = secret
        .reveal()
        .strip_prefix("whsec_")
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|bytes| bytes.len() >= 16);
    bytes.ok_or_else(|| "a signing secret is not `whsec_` and the base64 of 16 bytes or more".to_owned())
}

pub(super) fn check(settings: &serde_json::Value) -> Result<(), String> {
    settings::check_names(settings, &["secret", "secret_file", "secrets", "allow", "endpoints"])?;
    for endpoint in
        settings.get("endpoints").and_then(|map| map.as_object()).into_iter().flat_map(|map| map.values())
    {
        settings::check_names(endpoint, &["url", "secret", "secret_file", "secrets"])?;
    }
    let settings: Settings = settings::typed(settings)?;
    settings.secrets.keys()?;
    settings.allow.iter().try_for_each(|entry| guard::check_allowed(entry))?;
    for (name, endpoint) in &settings.endpoints {
        endpoint.secrets.keys().map_err(|error| format!("endpoint `{}`: {error}", shown(name)))?;
        guard::check_url(&endpoint.url, &settings.allow)
            .map_err(|error| format!("endpoint `{}`: {error}", shown(name)))?;
    }
    Ok(())
}

impl Job for Webhook {
    const KIND: &'static str = "notify.webhook";

    fn retry() -> RetryPolicy {
        // The schedule that the specification recommends.
        RetryPolicy {
            max_attempts: 10,
            schedule: vec![5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400],
            ..RetryPolicy::default()
        }
    }

    fn timeout() -> Duration {
        Duration::from_secs(30)
    }
}

impl Handler for Webhook {
    async fn run(self, ctx: Context) -> JobResult {
        let settings: Settings = settings::read(&ctx)?;
        let Some((url, own)) = self.receiver(&settings)? else {
            return Ok(Outcome::Dead("give either `url` or `endpoint`".into())); // no attempt can change that
        };
        let delivery = shared::<Delivery>(&ctx)?;
        let to = match (guard::check_url(&url, &settings.allow), &*delivery) {
            (Ok(to), _) => to,
            // What only lands in the inbox needs no way out; its URL has to be one that could be sent to.
            (Err(_), Delivery::Inbox(_)) if guard::check_form(&url).is_ok() => {
                return self.keep(&ctx, &delivery, &url, &own.unwrap_or(&settings.secrets).keys()?);
            }
            (Err(refused), _) => return Ok(Outcome::Dead(refused.to_string())),
        };
        let keys = own.unwrap_or(&settings.secrets).keys()?;
        if let (Delivery::Inbox(_), false) = (&*delivery, to.allowed) {
            return self.keep(&ctx, &delivery, &url, &keys);
        }
        if keys.is_empty() {
            return Err("no signing secret: set `secret_file` in `[handlers.\"notify.webhook\"]`".into());
        }
        self.post(&ctx, &to, &keys).await
    }
}

impl Webhook {
    /// Where to, and the endpoint's own secrets if it has any; `None` when the arguments name no receiver, or two.
    fn receiver<'a>(
        &self,
        settings: &'a Settings,
    ) -> Result<Option<(String, Option<&'a Secrets>)>, JobError> {
        match (&self.url, &self.endpoint) {
            (Some(url), None) => Ok(Some((url.clone(), None))),
            (None, Some(name)) => {
                let endpoint = settings.endpoints.get(name).ok_or_else(|| {
                    format!("no endpoint `{}` in `[handlers.\"notify.webhook\".endpoints]`", shown(name))
                })?;
                let own = Some(&endpoint.secrets).filter(|own| {
                    own.secret.is_some() || own.secret_file.is_some() || !own.secrets.is_empty()
                });
                Ok(Some((endpoint.url.clone(), own)))
            }
            _ => Ok(None),
        }
    }

    /// The body: the same bytes at every attempt.
    fn body(&self, ctx: &Context) -> Result<String, JobError> {
        /// `data` goes out as it came in: reading it would round its numbers.
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'a str,
            timestamp: Timestamp,
            data: &'a RawValue,
        }
        let body = Body { r#type: &self.event, timestamp: ctx.enqueued_at, data: &self.data };
        Ok(serde_json::to_string(&body)?)
    }

    async fn post(&self, ctx: &Context, to: &Destination, keys: &[Vec<u8>]) -> JobResult {
        let body = self.body(ctx)?;
        let headers = headers(ctx, &body, keys)?;
        let answer = shared::<Outbound>(ctx)?.send(to, &headers, body).await;
        let answer = match answer {
            Ok(answer) => answer,
            // Another attempt would be refused as well, unless somebody changes the settings: then it can be retried.
            Err(super::outbound::SendError::Refused(refused)) => {
                return Ok(Outcome::Dead(refused.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let status = answer.status;
        let said = format!("the receiver answered {status}");
        match (status.as_u16(), answer.retry_after) {
            (200..=299, _) => Ok(Outcome::Done),
            (410, _) => Ok(Outcome::Dead(format!("{said}: it is gone, disable this endpoint"))),
            (429 | 502..=504, Some(after)) => {
                // Never earlier than the schedule: a receiver that asks for less would use the attempts up in no time.
                let planned = ctx.extras.retry.clone().unwrap_or_else(Self::retry).delay(ctx.attempt);
                Ok(Outcome::RetryIn(after.min(MAX_RETRY_AFTER).max(planned).max(MIN_RETRY_AFTER), said))
            }
            (300..=399, _) => Err(format!("{said}: redirects are not followed, give the final URL").into()),
            _ => Err(said.into()),
        }
    }

    /// Into the local inbox, as it would have been sent.
    fn keep(&self, ctx: &Context, delivery: &Delivery, url: &str, keys: &[Vec<u8>]) -> JobResult {
        let Delivery::Inbox(inbox) = delivery else { return Err("there is no inbox".into()) };
        let body = self.body(ctx)?;
        let (keys, note) = if keys.is_empty() {
            (
                vec![key(&Secret::new(DEV_SECRET.into()))?],
                Some(("sluicegate-note", format!("signed with the public secret of dev, {DEV_SECRET}"))),
            )
        } else {
            (keys.to_vec(), None)
        };
        let headers = headers(ctx, &body, &keys)?;
        inbox.keep(InboxMessage {
            job: ctx.id,
            kind: Self::KIND.into(),
            at: wall(),
            to: crate::location::without_password(url),
            subject: self.event.clone(),
            headers: headers.into_iter().chain(note).map(|(name, value)| (name.to_owned(), value)).collect(),
            body,
        })?;
        Ok(Outcome::Done)
    }
}

fn headers(ctx: &Context, body: &str, keys: &[Vec<u8>]) -> Result<Vec<(&'static str, String)>, JobError> {
    let (id, at) = (ctx.id.to_string(), wall().ms() / 1_000);
    let signatures: Result<Vec<String>, JobError> = keys.iter().map(|key| sign(key, &id, at, body)).collect();
    Ok(vec![
        ("content-type", "application/json".into()),
        ("user-agent", concat!("sluicegate/", env!("CARGO_PKG_VERSION")).into()),
        ("webhook-id", id),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", signatures?.join(" ")),
    ])
}

fn sign(key: &[u8], id: &str, at: i64, body: &str) -> Result<String, JobError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)?;
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the specification's own libraries.
        let key = key(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())).unwrap();
        let signature =
            sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn settings_are_checked_and_secrets_never_shown() {
        assert_eq!(
            check(
                &json!({ "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "allow": ["127.0.0.1:9000"] })
            ),
            Ok(())
        );
        for bad in [
            json!({ "secret": "s3cret" }),
            json!({ "typo": 1 }),
            json!({ "endpoints": { "a": { "url": "http://10.0.0.1/" } } }),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert_eq!(format!("{:?}", Secret::new("s3cret".into())), "***");
    }
}
