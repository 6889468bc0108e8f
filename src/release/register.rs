//! Registers a release: onto this host's shelf, then into the store. A release that the store knows stands whole on at least
//! one shelf; one that only a shelf knows is completed by registering it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::describe;
use super::error::{ShelfError, ShelfErrorKind};
use super::incoming::{Incoming, Placed, remove};
use super::manifest::Manifest;
use super::records::{self, RecordError, ReleaseRecord};
use super::shelf::Shelf;
use crate::names::{Release, Tier};
use crate::store::{Actor, Store};

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What the store keeps of it.
    pub record: ReleaseRecord,
    /// All of it.
    pub manifest: Manifest,
    /// Where it stands.
    pub path: PathBuf,
    /// Whether it came onto this host's shelf by this call.
    pub new_here: bool,
    /// Whether it came into the store by this call.
    pub new_in_store: bool,
}

/// Why there was none. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// What was given, or the shelf.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The store, or what it knows already.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Registers the release in a folder, or one program, under a name, or under the first digits of its digest.
///
/// The copy on the shelf is what is registered: it is what the digests are of, and what is asked what it runs. A source that
/// changes meanwhile is refused.
///
/// # Errors
/// When it is not fit to be a release, when the name belongs to other content, or when disk or store cannot take it. If the
/// store does not answer at the end, the release stays on the shelf, and the same call again completes it.
pub async fn register(
    store: &dyn Store,
    tier: &Tier,
    shelf: &Shelf,
    source: &Path,
    name: Option<Release>,
    by: &Actor,
) -> Result<Registration, RegisterError> {
    name.as_ref().map(Shelf::check_name).transpose()?;
    let stop = Stop::default();
    let (on, from) = (shelf.clone(), source.to_owned());
    let incoming = stop.blocking(move |stop| Incoming::copy(&on, &from, stop)).await?;
    let recipe = incoming.recipe()?;
    let description = match recipe.declares.clone() {
        Some(declared) => declared,
        None => describe::ask(incoming.path(), &recipe.program, recipe.config.as_deref()).await?,
    };
    let (incoming, manifest) = stop
        .blocking(move |stop| {
            let manifest = incoming.complete(recipe, description, name, stop)?;
            Ok((incoming, manifest))
        })
        .await?;
    let release = manifest.release.clone();
    let digest = manifest.digest();
    // Before it appears on the shelf: a name that is taken must not stand there with other content.
    if let Some(there) = records::read(store, tier, &release).await?.filter(|there| there.digest != digest) {
        return Err(RecordError::Conflict { there: Box::new(there), digest }.into());
    }
    let (placed, manifest) = stop
        .blocking(move |stop| {
            let placed = incoming.place(&manifest, stop)?;
            Ok((placed, manifest))
        })
        .await?;
    let path = shelf.path(&release);
    let new_here = placed == Placed::Now;
    let registered = match records::register(store, tier, manifest.record(), by).await {
        Ok(registered) => registered,
        Err(error @ RecordError::Conflict { .. }) if new_here => {
            // Another host was faster, with other content.
            remove(&path).map_err(|error| ShelfError::disk("take away", &path, error))?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Registration { record: registered.record, manifest, path, new_here, new_in_store: registered.is_new })
}

/// Work with files, on threads for that. When its caller goes away, it stops, and takes away what it made.
#[derive(Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Does it there; `work` looks at the flag again and again.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> Result<T, ShelfError> + Send + 'static,
    ) -> Result<T, ShelfError> {
        let stop = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&stop)).await;
        done.unwrap_or_else(|error| {
            Err(ShelfError::new(ShelfErrorKind::Stopped, format!("it broke while it was copied: {error}")))
        })
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
