//! As much of Redis' protocol as the kit needs: send a command, read a reply, see where a reply ends.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No answer takes so long, unless it never comes.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// What a server answered. Texts are shown as UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Int(i64),
    Text(String),
    Error(String),
    List(Vec<Self>),
}

impl Reply {
    /// The text, or a panic that shows what it is.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// The number, also one that came as text.
    pub(crate) fn int(self) -> i64 {
        match self {
            Self::Int(number) => number,
            Self::Text(text) if text.parse::<i64>().is_ok() => text.parse().unwrap(),
            other => panic!("no number: {other:?}"),
        }
    }

    /// The list, or a panic that shows what it is.
    pub(crate) fn list(self) -> Vec<Self> {
        match self {
            Self::List(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    /// The first reply in these bytes, and its length; none while it is not whole. RESP2, which all speak at first.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let head = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let line = String::from_utf8_lossy(&bytes[1..head - 2]).into_owned();
        let number = || line.parse::<i64>().unwrap_or_else(|_| panic!("no number: {line}"));
        Some(match bytes[0] {
            b'+' => (Self::Text(line), head),
            b'-' => (Self::Error(line), head),
            b':' => (Self::Int(number()), head),
            b'$' | b'*' if number() < 0 => (Self::Nil, head),
            b'$' => {
                let end = head + usize::try_from(number()).expect("a length");
                bytes.get(..end + 2)?;
                (Self::Text(String::from_utf8_lossy(&bytes[head..end]).into_owned()), end + 2)
            }
            b'*' => {
                let (mut list, mut end) = (Vec::new(), head);
                for _ in 0..number() {
                    let (item, length) = Self::parse(&bytes[end..])?;
                    list.push(item);
                    end += length;
                }
                (Self::List(list), end)
            }
            other => panic!("no reply begins with `{}`", char::from(other)),
        })
    }
}

/// One connection that sends exactly what it is told to.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    /// A connection to a server, or to a proxy, on loopback.
    pub(crate) async fn to(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends a command and does not wait for the reply.
    pub(crate) async fn send(&mut self, command: &[&str]) -> std::io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len());
        for word in command {
            bytes += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.write_all(bytes.as_bytes()).await
    }

    /// The next reply; an error when the connection ends before.
    pub(crate) async fn read(&mut self) -> std::io::Result<Reply> {
        loop {
            if let Some((reply, length)) = Reply::parse(&self.unread) {
                self.unread.drain(..length);
                return Ok(reply);
            }
            let read = self.stream.read_buf(&mut self.unread);
            if tokio::time::timeout(DEADLINE, read).await.expect("an answer in time")? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether there is nothing to read now, not even an end.
    pub(crate) fn is_silent(&self) -> bool {
        let none = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        self.unread.is_empty() && self.stream.try_read(&mut [0; 1]).is_err_and(none)
    }

    /// Sends a command and reads its reply.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> std::io::Result<Reply> {
        self.send(command).await?;
        self.read().await
    }
}

/// Finds where replies end in a stream of bytes, whatever pieces it comes in. RESP2, and what RESP3 adds.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Values to come until the reply is whole.
    open: u64,
    /// Bytes to come of a text whose length was told.
    skip: usize,
    /// A line whose end has not come.
    line: Vec<u8>,
}

impl Ends {
    /// The places in the next bytes of the stream where a reply has just ended.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<usize> {
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            if self.skip > 0 {
                let length = self.skip.min(bytes.len() - at);
                self.skip -= length;
                at += length;
            } else {
                let rest = &bytes[at..];
                let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
                self.line.extend_from_slice(&rest[..length]);
                at += length;
                if self.line.last() != Some(&b'\n') {
                    break;
                }
                self.header();
            }
            if self.skip == 0 {
                self.open -= 1;
                if self.open == 0 {
                    ends.push(at);
                }
            }
        }
        ends
    }

    /// Reads the line that begins a value.
    fn header(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        let number = || line.get(1..).and_then(|text| text.parse::<u32>().ok());
        self.open = self.open.max(1);
        match line.as_bytes().first() {
            Some(b'$' | b'=' | b'!') => self.skip = number().map_or(0, |length| length as usize + 2),
            Some(b'*' | b'~' | b'>') => self.open += u64::from(number().unwrap_or(0)),
            Some(b'%') => self.open += 2 * u64::from(number().unwrap_or(0)),
            _ => {}
        }
        self.line.clear();
    }
}
