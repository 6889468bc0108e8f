//! Exit codes: one table, printed by `help exit-codes`, stable for scripts.

/// What a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and verified.
    Ok = 0,
    /// Unexpected; or a declined prompt.
    Error = 1,
    /// Bad flags or configuration.
    Usage = 2,
    /// The verdict is "fail".
    Unhealthy = 3,
    /// Missing or denied credentials.
    Auth = 4,
    /// Failed after activation; the previous release is active again.
    RolledBack = 5,
    /// A rollback could not be verified.
    RollbackFailed = 6,
    /// Nothing to go back to.
    NoRollbackTarget = 7,
    /// Not decided yet, or no evidence.
    Pending = 8,
    /// Somebody else owns it.
    Conflict = 9,
    /// Unknown id.
    NotFound = 10,
    /// A bulk action finished with failures.
    Partial = 11,
    /// A drain was stopped by its own safety rule.
    Breaker = 12,
    /// The store or API cannot be reached.
    Unreachable = 13,
    /// Both releases fail the same way.
    Environment = 14,
    /// A temporary refusal.
    RetryLater = 75,
    /// Waited, no final verdict.
    Timeout = 124,
    /// SIGINT.
    Interrupted = 130,
    /// The reader of standard output went away.
    Pipe = 141,
    /// SIGTERM.
    Terminated = 143,
}

/// Code, name and meaning, as printed.
pub(super) const TABLE: &[(Exit, &str, &str)] = &[
    (Exit::Ok, "ok", "done, and verified; verdict pass; a worker that was told to stop and lost nothing"),
    (Exit::Error, "error", "unexpected; a declined prompt (nothing changed)"),
    (
        Exit::Usage,
        "usage",
        "bad flags or configuration; a prompt is needed but there is no terminal and no --yes",
    ),
    (
        Exit::Unhealthy,
        "unhealthy",
        "verdict fail; a switch refused before anything changed; a job that was waited for is dead, cancelled or expired",
    ),
    (Exit::Auth, "auth", "missing or denied credentials"),
    (
        Exit::RolledBack,
        "rolled_back",
        "the deploy failed after activation; the previous release is active again and verified",
    ),
    (Exit::RollbackFailed, "rollback_failed", "the rollback could not be verified: page a person"),
    (Exit::NoRollbackTarget, "no_rollback_target", "nothing retained and verified to go back to"),
    (Exit::Pending, "pending", "single check: not decided yet, or no evidence"),
    (
        Exit::Conflict,
        "conflict",
        "another one owns it: a lock, an id with other content, a unique key, a worker's name, an activation",
    ),
    (Exit::NotFound, "not_found", "unknown id; or a filter matched nothing under --require-match"),
    (Exit::Partial, "partial", "a bulk action finished with failures"),
    (Exit::Breaker, "breaker", "a drain was stopped by its own safety rule"),
    (Exit::Unreachable, "unreachable", "the store or API cannot be reached: state unknown, not unhealthy"),
    (Exit::Environment, "environment", "both releases fail the same way: held, not rolled back"),
    (Exit::RetryLater, "retry_later", "a temporary refusal"),
    (Exit::Timeout, "timeout", "waited, no final verdict"),
    (Exit::Interrupted, "interrupted", "SIGINT"),
    (Exit::Pipe, "pipe", "the reader of standard output went away"),
    (Exit::Terminated, "terminated", "SIGTERM"),
];
