//! `config show|validate|docs|path`.

use serde_json::json;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::with_builtin;
use crate::config::keys::{KEYS, QUEUE_KEYS};
use crate::config::{Config, usual_files};
use crate::handlers::{self, Delivery};
use crate::location::masked;

pub(super) fn show(ctx: &mut Context, origin: bool) -> CliResult {
    let config = ctx.config()?;
    let rows: Vec<(String, Option<String>, String)> = config
        .values()
        .map(|(key, value)| {
            (key.path.to_owned(), value.text.as_deref().map(masked), value.origin.to_string())
        })
        .chain(
            config.queue_values().map(|(path, value)| (path, value.text.clone(), value.origin.to_string())),
        )
        .chain(config.handlers().iter().map(|(kind, (settings, origin))| {
            (format!("handlers.{kind}"), Some(without_secrets(settings)), origin.to_string())
        }))
        .collect();
    if !ctx.out.is_for_people() {
        let object: serde_json::Map<_, _> = rows
            .into_iter()
            .map(|(path, value, origin)| (path, json!({ "value": value, "origin": origin })))
            .collect();
        ctx.out.json(&object)?;
        return Ok(Exit::Ok);
    }
    for (path, value, from) in rows {
        let value = value.unwrap_or_else(|| "(not set)".to_owned());
        if origin {
            ctx.out.line(format!("{path} = {value}    # {from}"))?
        } else {
            ctx.out.line(format!("{path} = {value}"))?
        }
    }
    Ok(Exit::Ok)
}

/// Settings of a kind without what may be secret in them.
fn without_secrets(settings: &serde_json::Value) -> String {
    fn mask(value: &serde_json::Value, secret: bool) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => map
                .iter()
                .map(|(key, value)| {
                    let hidden = ["secret", "password", "token", "key"].iter().any(|word| key.contains(word))
                        && !key.ends_with("_file");
                    (key.clone(), mask(value, secret || hidden))
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
            serde_json::Value::Array(items) => {
                items.iter().map(|item| mask(item, secret)).collect::<Vec<_>>().into()
            }
            _ if secret => "***".into(),
            serde_json::Value::String(text) => masked(text).into(),
            other => other.clone(),
        }
    }
    mask(settings, false).to_string()
}

/// Settings of kinds that nobody knows, or that their kind refuses.
pub(super) fn check_handlers(config: &Config, registry: &crate::worker::Registry) -> Result<(), CliError> {
    for (kind, (settings, origin)) in config.handlers() {
        if registry.get(kind).is_none() {
            let known: Vec<String> = registry.kinds().into_iter().map(|(kind, _)| kind.to_string()).collect();
            return Err(CliError::usage(format!("{origin}: no kind `{kind}` in this program"))
                .hint(format!("it knows {}", known.join(", "))));
        }
        handlers::check_settings(kind, settings)
            .map_err(|error| CliError::usage(format!("{origin}: `handlers.{kind}`: {error}")))?;
    }
    Ok(())
}

pub(super) fn validate(ctx: &mut Context) -> CliResult {
    let config = ctx.config()?;
    ctx.store_url(&config)?;
    config.api_token()?.map(|token| check_token(&token)).transpose()?;
    let registry = with_builtin(std::mem::take(&mut ctx.registry), Delivery::Real)?;
    check_handlers(&config, &registry)?;
    let file = config
        .file
        .as_ref()
        .map_or_else(|| "no file, defaults only".to_owned(), |path| path.display().to_string());
    if ctx.out.is_for_people() {
        ctx.out.line(format!("{} configuration is valid ({file})", ctx.out.mark(true)))?;
    } else {
        ctx.out.json(&json!({ "valid": true, "file": config.file }))?;
    }
    Ok(Exit::Ok)
}

fn check_token(token: &str) -> Result<(), CliError> {
    crate::http::check_token(token).map_err(|error| CliError::usage(format!("`api.token_file`: {error}")))
}

pub(super) fn docs(ctx: &Context, section: Option<&str>) -> CliResult {
    let wanted = |path: &str| {
        section.is_none_or(|section| path == section || path.starts_with(&format!("{section}.")))
    };
    let mut found = false;
    for key in KEYS.iter().chain(&QUEUE_KEYS).filter(|key| wanted(key.path)) {
        found = true;
        ctx.out.line(format!(
            "{}\n    {}\n    takes {}; default {}; {}",
            key.path,
            key.doc,
            key.expects(),
            key.default.unwrap_or("none"),
            key.variable()
        ))?;
    }
    for setting in handlers::docs()
        .iter()
        .filter(|setting| wanted(&format!("handlers.{}", setting.kind)) || section == Some("handlers"))
    {
        found = true;
        ctx.out.line(format!(
            "[handlers.\"{}\"] {}\n    {}\n    default {}",
            setting.kind, setting.setting, setting.doc, setting.default
        ))?;
    }
    if found {
        Ok(Exit::Ok)
    } else {
        Err(CliError::new(Exit::NotFound, format!("no section `{}`", section.unwrap_or_default())).hint(
            "sections: tier, store, releases, worker, api, health, queues, dev, log, telemetry, handlers",
        ))
    }
}

pub(super) fn path(ctx: &mut Context) -> CliResult {
    let config = ctx.config()?;
    for path in usual_files() {
        let read = config.file.as_ref() == Some(&path);
        ctx.out.line(format!("{}{}", path.display(), if read { "    (read)" } else { "" }))?;
    }
    Ok(Exit::Ok)
}
