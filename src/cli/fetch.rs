//! One small GET over plain HTTP/1.1, for what a worker on this machine answers: no curl is needed in an image.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::clock::instant;
use crate::names::shown;

/// More than any answer of ours.
const MAX_ANSWER: usize = 1024 * 1024;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Host and port of a base such as `http://127.0.0.1:7433`.
pub(super) fn host_of(url: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("`{}` is no base URL of probes: {why}", shown(url)));
    let Some(rest) = url.strip_prefix("http://") else {
        return wrong("it must begin with `http://`");
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)) {
        return wrong("only a host and a port may follow");
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if has_port { host.to_owned() } else { format!("{host}:80") })
}

/// Asks, and waits no longer than this in all.
pub(super) fn get(host: &str, path: &str, accept: &str, patience: Duration) -> Result<Answer, String> {
    let deadline = instant() + patience;
    let mut stream = connect(host, deadline)?;
    let failed = |error: std::io::Error| format!("cannot ask {host}: {error}");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(left(deadline)?)).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let (mut bytes, mut part) = (Vec::new(), [0; 8_192]);
    loop {
        stream.set_read_timeout(Some(left(deadline)?)).map_err(failed)?;
        let read = stream.read(&mut part).map_err(failed)?;
        if read == 0 {
            return answer(host, &bytes);
        }
        bytes.extend_from_slice(part.get(..read).unwrap_or_default());
        if bytes.len() > MAX_ANSWER {
            return Err(format!("{host} answered more than {MAX_ANSWER} bytes: these are no probes"));
        }
    }
}

fn connect(host: &str, deadline: Instant) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("cannot connect to {host}: {error}");
    let mut last = format!("{host} has no address");
    for address in host.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> Result<Duration, String> {
    let left = deadline.saturating_duration_since(instant());
    if left.is_zero() { Err("no answer in time".to_owned()) } else { Ok(left) }
}

/// A whole answer, with the length that it promised.
fn answer(host: &str, bytes: &[u8]) -> Result<Answer, String> {
    let text = String::from_utf8_lossy(bytes);
    let wrong = || format!("{host} does not answer as probes do");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status =
        head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err(format!("the answer of {host} was cut off"));
    }
    Ok(Answer { status: status.ok_or_else(wrong)?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_host_and_a_port() {
        for (url, host) in [
            ("http://127.0.0.1:7433", Some("127.0.0.1:7433")),
            ("http://[::1]:7433/", Some("[::1]:7433")),
            ("http://worker-3", Some("worker-3:80")),
            ("https://worker-3", None),
            ("127.0.0.1:7433", None),
            ("http://a/b", None),
            ("http://a\r\nX: y", None),
            ("http://", None),
        ] {
            assert_eq!(host_of(url).ok().as_deref(), host, "{url}");
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let read = |text: &str| answer("h", text.as_bytes()).map(|answer| (answer.status, answer.body));
        assert_eq!(read("HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nno\n"), Ok((503, "no\n".to_owned())));
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").is_err_and(|e| e.contains("cut off")));
        for other in ["", "SSH-2.0-x\r\n", "HTTP/1.1 2\r\n\r\n", "220 mail\r\n\r\n"] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
