//! What an error of the server or of a connection means for a caller, with the way out.

use deadpool_redis::PoolError;
use deadpool_redis::redis::{ErrorKind as Kind, RedisError, ServerErrorKind};

use super::link::{ANSWER, Link};
use crate::store::{ErrorKind, StoreError};

impl Link {
    /// What it means when there is no connection: nothing happened.
    pub(super) fn unreachable(&self, op: &'static str, error: &PoolError) -> StoreError {
        match error {
            PoolError::Backend(error) => match self.explain(op, error) {
                error if error.kind == ErrorKind::Timeout => {
                    StoreError { kind: ErrorKind::Unavailable, ..error }
                }
                error => error,
            },
            PoolError::Timeout(_) => self.no_connection(op),
            other => self.error(op, ErrorKind::Unavailable, other),
        }
    }

    /// What an error of the server or of the connection means for a caller, with the way out.
    pub(super) fn explain(&self, op: &'static str, error: &RedisError) -> StoreError {
        let text = error.to_string();
        let code = error.code().unwrap_or_default();
        let (kind, hint) = match (error.kind(), code) {
            (Kind::Server(ServerErrorKind::ReadOnly), _) => (
                ErrorKind::ReadOnly,
                "this is a replica (or was demoted): name the master; after a failover everything resumes by itself",
            ),
            (_, "OOM") => (
                ErrorKind::Full,
                "Redis has reached `maxmemory`: workers go on and make room; raise the limit, or purge what nobody needs",
            ),
            (_, "MISCONF") => (
                ErrorKind::Full,
                "Redis cannot write to its disk and refuses writes: free space there, and see its log",
            ),
            (Kind::Server(ServerErrorKind::NoPerm), _) => (
                ErrorKind::Denied,
                "this Redis user lacks a permission: it needs `~sg:* &sg:* +@all -@admin -@dangerous +info +config|get`",
            ),
            (Kind::AuthenticationFailed, _) | (_, "NOAUTH" | "WRONGPASS") => {
                (ErrorKind::Denied, "check the user and the password in `store.url` or `store.password_file`")
            }
            (_, "BUSY") => (
                ErrorKind::Unavailable,
                "a script of another client keeps Redis busy: `redis-cli SCRIPT KILL`",
            ),
            (_, "NOREPLICAS") => {
                (ErrorKind::Unavailable, "Redis has fewer replicas than its `min-replicas-to-write` asks for")
            }
            (
                Kind::Server(
                    ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::NoScript,
                ),
                _,
            ) => (ErrorKind::Unavailable, ""),
            (Kind::Io, _) if error.is_connection_refusal() => {
                (ErrorKind::Unavailable, "check that Redis runs there: `redis-cli -u URL ping`")
            }
            // It was sent, perhaps: nobody knows what became of it.
            (Kind::Io, _) if error.is_timeout() => {
                return self
                    .error(op, ErrorKind::Timeout, format!("no answer within {} s", ANSWER.as_secs()))
                    .hint("check that Redis runs there and that nothing drops the packets");
            }
            (Kind::Io, _) => {
                let detail = format!("the connection ended before the answer came ({text})");
                return self.error(op, ErrorKind::Timeout, detail);
            }
            // The master was demoted while it was asked what its replicas have.
            _ if text.contains("WAIT cannot be used") => (
                ErrorKind::Timeout,
                "this became a replica: name the master; after a failover everything resumes by itself",
            ),
            // `SCRIPT KILL` ends only what has changed nothing yet.
            _ if text.contains("Script killed") => (ErrorKind::Unavailable, "somebody used `SCRIPT KILL`"),
            (Kind::Parse, _) => (ErrorKind::Unavailable, "what answers there does not speak Redis"),
            (Kind::InvalidClientConfig | Kind::RESP3NotSupported, _) => (ErrorKind::Unsupported, ""),
            _ => (ErrorKind::Corrupt, ""),
        };
        let answer = self.error(op, kind, crate::names::shown_long(&text));
        if hint.is_empty() { answer } else { answer.hint(hint) }
    }
}

/// Whether the connection is of no use after this, or reaches the wrong server.
pub(super) fn spoils(error: &RedisError) -> bool {
    !matches!(
        error.kind(),
        Kind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript | ServerErrorKind::NoPerm)
    ) && !matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS"))
}
