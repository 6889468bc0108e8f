//! Who answers there? One line is read from whoever it is before a connection is trusted with whole answers: a server of
//! something else is named as that, and cannot fill the memory.

use deadpool_redis::redis::ConnectionAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::store::{ErrorKind, StoreError};

/// The first line of a Redis server is shorter.
const LINE: u64 = 256;

/// Somebody who cannot be worked with.
#[derive(Debug)]
pub(super) enum Stranger {
    /// Nobody listens there.
    Nobody(std::io::Error),
    /// It does not speak Redis; what it said.
    Foreign(String),
    /// A Redis server that does not let anybody in; what it said.
    Closed(String),
}

impl Stranger {
    pub(super) fn error(self, op: &'static str, place: &str) -> StoreError {
        let error = |kind, detail: String| StoreError::new(op, place, kind, detail);
        match self {
            Self::Nobody(io) => error(ErrorKind::Unavailable, io.to_string())
                .hint("check that Redis runs there: `redis-cli -u URL ping`"),
            Self::Foreign(said) => error(
                ErrorKind::Unavailable,
                format!("what answers there says `{}`", crate::names::shown(&said)),
            )
            .hint("what answers there does not speak Redis: check the host and the port in `store.url`"),
            Self::Closed(said) if said.starts_with("DENIED") => {
                error(ErrorKind::Denied, crate::names::shown_long(&said))
                    .hint("set a password for Redis (`requirepass`) and give it with `store.password_file`")
            }
            Self::Closed(said) => error(ErrorKind::Unavailable, crate::names::shown_long(&said))
                .hint("raise `maxclients` of Redis, or end clients that nobody needs"),
        }
    }
}

fn is_redis(said: &[u8]) -> bool {
    said.starts_with(b"+PONG\r\n") || matches!(said, [b'-', b'A'..=b'Z', ..])
}

/// Whether it is a Redis server that lets clients in. A password, a role or a state that it minds is the client's matter.
pub(super) async fn greet(address: &ConnectionAddr) -> Result<(), Stranger> {
    let ConnectionAddr::Tcp(host, port) = address else { return Ok(()) };
    let mut stream = TcpStream::connect((host.as_str(), *port)).await.map_err(Stranger::Nobody)?;
    let mut said = Vec::new();
    let talk = async {
        stream.write_all(b"PING\r\nQUIT\r\n").await?;
        // Redis ends the connection itself: then it does not count any more when the next one comes.
        let mut line = stream.take(LINE);
        while (!said.ends_with(b"\n") || is_redis(&said)) && line.read_buf(&mut said).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whoever says something and hangs up was heard.
    if let Err(error) = talk.await
        && said.is_empty()
    {
        return Err(Stranger::Nobody(error));
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.lines().next().unwrap_or_default();
    match said.split_at_checked(1) {
        Some(("+", "PONG")) => Ok(()),
        Some(("-", error)) if error.starts_with("DENIED") || error.contains("max number of clients") => {
            Err(Stranger::Closed(error.to_owned()))
        }
        Some(("-", error)) if error.starts_with(|c: char| c.is_ascii_uppercase()) => Ok(()),
        _ => Err(Stranger::Foreign(said.to_owned())),
    }
}
