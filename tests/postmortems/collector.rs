//! Collectors of traces and metrics: one that works, and every way in which one does not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Nothing here takes so long, on any machine.
const LONG: Duration = Duration::from_secs(60);

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Takes it.
    Works,
    /// Accepts the connection and never answers.
    Silent,
    /// Answers one byte per second.
    Drips,
    /// Answers what is no HTTP.
    Garbage,
    /// Answers HTTP with what is no protobuf.
    NoProtobuf,
    /// `503`, `Retry-After: 3600`.
    Unavailable,
    /// 100 MB.
    Floods,
}

/// One request that it was sent.
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

pub(super) struct Collector {
    pub(super) address: SocketAddr,
    asked: Receiver<Asked>,
    /// Bytes that it got rid of as an answer.
    pub(super) answered: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Collector {
    pub(super) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (said, asked) = channel();
        let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&answered), Arc::clone(&over));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(SeqCst) {
                    return;
                }
                let (said, count) = (said.clone(), Arc::clone(&count));
                std::thread::spawn(move || drop(serve(&stream, manner, &said, &count)));
            }
        });
        Self { address, asked, answered, over }
    }

    /// An address where nobody listens.
    pub(super) fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request, to this path if one is named.
    pub(super) fn asked(&self, path: &str) -> Asked {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = self.asked.recv_timeout(left).unwrap_or_else(|_| panic!("nobody asked {path}"));
            if asked.path.ends_with(path) {
                return asked;
            }
        }
    }

    /// What it was asked and nobody looked at.
    pub(super) fn rest(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        drop(TcpStream::connect(self.address)); // wakes the one that accepts
    }
}

fn serve(
    stream: &TcpStream,
    manner: Manner,
    said: &Sender<Asked>,
    answered: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader)? {
        drop(said.send(asked)); // the test may have ended
        let answer = |bytes: &[u8]| {
            (&*stream).write_all(bytes)?;
            answered.fetch_add(bytes.len(), SeqCst);
            std::io::Result::Ok(())
        };
        match manner {
            Manner::Works => answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?,
            Manner::Silent => drop(reader.read(&mut [0])), // until the other one hangs up
            Manner::Drips => {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".iter().cycle() {
                    answer(&[*byte])?;
                    std::thread::park_timeout(Duration::from_secs(1));
                }
            }
            Manner::Garbage => answer(&[0xff, 0x00, b'\n', b'\r'].repeat(64))?,
            Manner::NoProtobuf => answer(
                &[b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n".to_vec(), vec![0xff; 400]].concat(),
            )?,
            Manner::Unavailable => {
                answer(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n")?
            }
            Manner::Floods => {
                answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")?;
                for _ in 0..1_000 {
                    answer(&[0; 100_000])?;
                }
            }
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Asked { path, head: lower, body }))
}

/// Protobuf, as far as it takes to look at what was sent: a message is its fields, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<(u64, Field)>);

#[derive(Debug, Clone)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Message {
    pub(super) fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let field = match tag & 7 {
                0 => Field::Number(varint(&mut bytes)),
                1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().expect("eight"))),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).expect("a length");
                    Field::Bytes(take(&mut bytes, length).to_vec())
                }
                5 => {
                    let four: [u8; 4] = take(&mut bytes, 4).try_into().expect("four");
                    Field::Number(u64::from(u32::from_le_bytes(four)))
                }
                other => panic!("wire type {other}"),
            };
            fields.push((tag >> 3, field));
        }
        Self(fields)
    }

    /// All messages under this number.
    pub(super) fn all(&self, number: u64) -> Vec<Self> {
        let bytes = |(known, field): &(u64, Field)| match field {
            Field::Bytes(bytes) if *known == number => Some(Self::read(bytes)),
            _ => None,
        };
        self.0.iter().filter_map(bytes).collect()
    }

    /// Messages below messages.
    pub(super) fn below(&self, path: &[u64]) -> Vec<Self> {
        match path.split_first() {
            None => vec![self.clone()],
            Some((first, rest)) => self.all(*first).iter().flat_map(|message| message.below(rest)).collect(),
        }
    }

    pub(super) fn bytes(&self, number: u64) -> Vec<u8> {
        let found = self.0.iter().find_map(|(known, field)| match field {
            Field::Bytes(bytes) if *known == number => Some(bytes.clone()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    pub(super) fn text(&self, number: u64) -> String {
        String::from_utf8(self.bytes(number)).expect("text")
    }

    pub(super) fn hex(&self, number: u64) -> String {
        self.bytes(number).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn number(&self, number: u64) -> u64 {
        let found = self.0.iter().find_map(|(known, field)| match field {
            Field::Number(value) if *known == number => Some(*value),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The value of an attribute among those under this number, as text.
    pub(super) fn attribute(&self, number: u64, key: &str) -> Option<String> {
        let pairs = self.all(number);
        let value = pairs.iter().find(|pair| pair.text(1) == key)?.all(2).pop().unwrap_or_default();
        Some(if value.bytes(1).is_empty() { value.number(3).to_string() } else { value.text(1) })
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}
