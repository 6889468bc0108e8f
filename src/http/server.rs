//! The one connection layer under every face.

use std::time::Duration;

/// What one listener accepts from the world.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For the whole head of a request, and for an idle connection.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            connections: 256,
            per_peer: 128,
        }
    }
}
