//! Requests of the HTTP server.

/// Maximum size of a request's head. No scraper sends as much.
pub const MAX_HEAD: usize = 4 << 10;

/// Answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The metrics.
    Metrics,
    /// The state of health.
    Health,
    /// An error.
    Refused(Status),
}

/// Status of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    BadRequest,
    NotFound,
    WrongMethod,
}

/// A request whose head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub answer: Answer,
    /// True if only the head of the response is wanted.
    pub is_head: bool,
}

/// Parses what a client has sent so far; `None` if the head isn't complete.
pub fn parse(bytes: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let refused = |status| Some(Request { answer: Answer::Refused(status), is_head: false });
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return None,
        Ok(httparse::Status::Partial) | Err(_) => return refused(Status::BadRequest),
    }
    let is_head = request.method == Some("HEAD");
    if !is_head && request.method != Some("GET") {
        return refused(Status::WrongMethod);
    }
    let path = request.path.unwrap_or_default();
    let answer = match path.split_once('?').map_or(path, |(path, _)| path) {
        "/metrics" => Answer::Metrics,
        "/healthz" => Answer::Health,
        _ => Answer::Refused(Status::NotFound),
    };
    Some(Request { answer, is_head })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(text: &str) -> Option<Answer> {
        parse(text.as_bytes()).map(|request| request.answer)
    }

    #[test]
    fn each_request_has_its_answer() {
        let asks = |path: &str| answer(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(asks("/metrics"), Some(Answer::Metrics));
        assert_eq!(asks("/metrics?name[]=a"), Some(Answer::Metrics));
        assert_eq!(asks("/healthz"), Some(Answer::Health));
        for path in ["/", "/metrics/", "/Metrics", "//metrics", "/../metrics"] {
            assert_eq!(asks(path), Some(Answer::Refused(Status::NotFound)), "{path}");
        }
        assert_eq!(answer("GET /metrics HTTP/1.0\r\n\r\n"), Some(Answer::Metrics));
        assert_eq!(answer("POST /metrics HTTP/1.1\r\n\r\n"), Some(Answer::Refused(Status::WrongMethod)));
        let head = parse(b"HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!((head.answer, head.is_head), (Answer::Metrics, true));
    }

    #[test]
    fn what_is_no_request_is_refused_and_what_may_become_one_waits() {
        let bad = Some(Answer::Refused(Status::BadRequest));
        assert_eq!(answer("\0\0\0"), bad);
        assert_eq!(answer("GET /metrics HTTP/9.9\r\n\r\n"), bad);
        assert_eq!(answer("GET /met"), None);
        assert_eq!(answer(&format!("GET /{}", "a".repeat(MAX_HEAD))), bad, "a line without an end");
        let headers = "A: b\r\n".repeat(65);
        assert_eq!(answer(&format!("GET /metrics HTTP/1.1\r\n{headers}\r\n")), bad, "too many headers");
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..MAX_HEAD)) {
            let _ = parse(&bytes);
        }
    }
}
