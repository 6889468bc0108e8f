//! Tests that hold on every store: a body exists once, and runs as `sqlite::NAME` and as `redis::NAME`. A body that the list
//! at the end of its file forgets is dead code, which is a warning, which fails.

use std::sync::Arc;

use sluicegate::store::Store;
use tempfile::TempDir;

use crate::redis::server::Server;

/// Which store a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Redis,
}

impl Engine {
    /// A server of its own, if this engine is one. What it acknowledges is on disk, as with SQLite.
    pub(crate) fn server(self) -> Option<Server> {
        (self == Self::Redis).then(|| Server::setup().append_only("always").start())
    }
}

/// An empty store of its own: a file, or a server.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) server: Option<Server>,
}

impl Place {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { folder: TempDir::new().expect("a folder"), server: engine.server() }
    }

    pub(crate) fn url(&self) -> String {
        match &self.server {
            Some(server) => server.url(),
            None => format!("sqlite:{}", self.folder.path().join("jobs.db").display()),
        }
    }

    /// Another client of it.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        sluicegate::store::open(&self.url().parse().expect("a URL")).await.expect("a store")
    }
}

/// Makes tests of functions that take an [`Engine`]: `#[test] fn: names;` or `#[tokio::test] async: names;`.
macro_rules! on_both {
    ($(#[$test:meta] $kind:tt: $($name:ident)+;)+) => {
        mod sqlite { $(on_both!(@$kind #[$test] Sqlite $($name)+);)+ }
        mod redis { $(on_both!(@$kind #[$test] Redis $($name)+);)+ }
    };
    (@fn #[$test:meta] $engine:ident $($name:ident)+) => {$(
        #[$test]
        fn $name() {
            super::$name(crate::both::Engine::$engine);
        }
    )+};
    (@async #[$test:meta] $engine:ident $($name:ident)+) => {$(
        #[$test]
        async fn $name() {
            Box::pin(super::$name(crate::both::Engine::$engine)).await;
        }
    )+};
}
