//! One connection of the HTTP server: a request, then its response, neither of which blocks.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::peer::Peer;
use super::request::{Answer, MAX_HEAD, Request, Status, parse};

/// Time for a request, and for a response: a scraper that takes longer has given up.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const RESPONSE_TIME: Duration = Duration::from_secs(60);

/// Time to wait for fresh metrics; after that, the last ones are sent.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// Bytes that the kernel sends in a call: others get their turn in between.
const PIECE: usize = 64 << 10;

/// The metrics as text.
#[derive(Clone, Debug)]
pub struct Page {
    /// The text, in a file without a name.
    pub text: Arc<OwnedFd>,
    /// Its length.
    pub length: u64,
    /// Its number.
    pub version: u64,
}

/// What the server knows when a response begins.
pub struct Known {
    /// The metrics; `None` before the first.
    pub page: Option<Page>,
    /// Reason why the watch isn't healthy, if it isn't.
    pub trouble: Option<String>,
}

/// State of a connection.
#[derive(Debug)]
enum State {
    /// Reads the request.
    Request { head: Vec<u8> },
    /// Waits for metrics that are newer than the request.
    Fresh { is_head: bool, version: u64 },
    /// Writes the response: its head, then the text from an offset on.
    Response { head: Vec<u8>, written: usize, page: Option<Page>, offset: u64 },
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: File,
    peer: Peer,
    state: State,
    until: Instant,
}

/// What a connection needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another event.
    Event,
    /// Fresh metrics.
    Metrics,
    /// Nothing: it is over.
    End,
}

impl Connection {
    /// Takes a connection, which must not block.
    pub fn new(stream: OwnedFd, peer: Peer, now: Instant) -> Self {
        let state = State::Request { head: Vec::new() };
        Self { stream: stream.into(), peer, state, until: now + REQUEST_TIME }
    }

    /// Returns its descriptor, and the events to wait for.
    pub fn wants(&self) -> (BorrowedFd<'_>, PollFlags) {
        let events = match self.state {
            State::Request { .. } => PollFlags::IN,
            State::Fresh { .. } => PollFlags::empty(),
            State::Response { .. } => PollFlags::OUT,
        };
        (self.stream.as_fd(), events)
    }

    /// Returns the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns the number of the text that it sends, if it does.
    pub fn version(&self) -> Option<u64> {
        match &self.state {
            State::Response { page, .. } => page.as_ref().map(|page| page.version),
            State::Request { .. } | State::Fresh { .. } => None,
        }
    }

    /// Returns whether it hasn't asked for anything yet.
    pub fn asks_nothing(&self) -> bool {
        matches!(self.state, State::Request { .. })
    }

    /// Returns the time at which [`Connection::turn`] is needed without an event.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Goes on as far as is possible without waiting. `version` is that of the metrics; `known` is
    /// asked when a response begins.
    pub fn turn(&mut self, now: Instant, version: u64, known: &dyn Fn() -> Known) -> Next {
        let is_late = now >= self.until;
        if let State::Request { head } = &mut self.state {
            if is_late {
                return Next::End;
            }
            let request = match read(&mut self.stream, head) {
                Ok(Some(request)) => request,
                Ok(None) => return Next::Event,
                Err(_) => return Next::End,
            };
            if request.answer == Answer::Metrics {
                self.until = now + FRESH_TIME;
                self.state = State::Fresh { is_head: request.is_head, version };
                return Next::Metrics;
            }
            self.respond(now, request, known());
        }
        if let State::Fresh { is_head, version: before } = self.state {
            if version == before && !is_late {
                return Next::Event;
            }
            self.respond(now, Request { answer: Answer::Metrics, is_head }, known());
        }
        if now >= self.until {
            return Next::End;
        }
        match self.write() {
            Ok(false) => Next::Event,
            Ok(true) | Err(_) => Next::End,
        }
    }

    /// Begins a response.
    fn respond(&mut self, now: Instant, request: Request, known: Known) {
        let Request { answer, is_head } = request;
        let text = "text/plain; charset=utf-8";
        let (status, kind, more, body, page) = match (answer, known.page, known.trouble) {
            (Answer::Metrics, Some(page), _) => {
                ("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", String::new(), Some(page))
            }
            (Answer::Metrics, None, _) => {
                ("503 Service Unavailable", text, "", "no metrics yet\n".to_owned(), None)
            }
            (Answer::Health, _, None) => ("200 OK", text, "", "ok\n".to_owned(), None),
            (Answer::Health, _, Some(why)) => ("503 Service Unavailable", text, "", why + "\n", None),
            (Answer::Refused(Status::BadRequest), ..) => {
                ("400 Bad Request", text, "", "not an HTTP request\n".to_owned(), None)
            }
            (Answer::Refused(Status::NotFound), ..) => {
                ("404 Not Found", text, "", "only /metrics and /healthz are here\n".to_owned(), None)
            }
            (Answer::Refused(Status::WrongMethod), ..) => {
                let only = "only GET and HEAD are possible\n".to_owned();
                ("405 Method Not Allowed", text, "Allow: GET, HEAD\r\n", only, None)
            }
        };
        let length = page.as_ref().map_or(body.len() as u64, |page| page.length);
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n"
        );
        if !is_head {
            head += &body;
        }
        let page = page.filter(|_| !is_head);
        self.until = now + RESPONSE_TIME;
        self.state = State::Response { head: head.into_bytes(), written: 0, page, offset: 0 };
    }

    /// Writes some of the response. Returns whether it is complete.
    fn write(&mut self) -> std::io::Result<bool> {
        let State::Response { head, written, page, offset } = &mut self.state else { return Ok(false) };
        while *written < head.len() {
            match self.stream.write(&head[*written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *written += count,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        if let Some(page) = page
            && *offset < page.length
        {
            match sendfile(&self.stream, &page.text, Some(offset), PIECE) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) if *offset < page.length => return Ok(false),
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(why) => return Err(why.into()),
            }
        }
        // Bytes that were never read would turn the end into a reset, which can lose the response.
        let _ = self.stream.read(&mut [0; 1024]);
        let _ = shutdown(&self.stream, Shutdown::Write);
        Ok(true)
    }
}

/// Reads more of a request. Returns it once it is complete.
fn read(stream: &mut File, head: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&bytes[..count]),
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            Err(why) => return Err(why),
        }
        if let Some(request) = parse(head) {
            return Ok(Some(request));
        }
        debug_assert!(head.len() < MAX_HEAD);
    }
}
