//! Tests of the server, over real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::*;

fn served(text: &'static str) -> Server {
    let server = Server::listen(&Address::Ip("127.0.0.1:0".parse().unwrap())).unwrap();
    server.replace(|to| to.write_all(text.as_bytes())).unwrap();
    server
}

fn connect(server: &Server) -> TcpStream {
    let Address::Ip(at) = server.address() else { panic!("a unix socket") };
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends a request, and returns the whole response.
fn response(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn get(server: &Server, path: &str) -> String {
    response(connect(server), &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

#[test]
fn metrics_and_errors_have_their_status() {
    let server = served("memctl_build_info 1\n");
    let metrics = get(&server, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4;"), "{metrics}");
    assert!(metrics.ends_with("\r\nContent-Length: 20\r\nConnection: close\r\n\r\nmemctl_build_info 1\n"));
    assert!(get(&server, "/").starts_with("HTTP/1.1 404 "));
    let posted = response(connect(&server), "POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
    assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("\r\nAllow: GET, HEAD\r\n"), "{posted}");
    assert!(response(connect(&server), "\x16\x03\x01 TLS\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let head = response(connect(&server), "HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 20\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_request_waits_for_fresh_metrics_but_not_for_long() {
    let server = served("old\n");
    let client = connect(&server);
    std::thread::scope(|scope| {
        let scraped = scope.spawn(|| response(client, "GET /metrics HTTP/1.1\r\n\r\n"));
        let until = Instant::now() + Duration::from_secs(20);
        while !server.is_wanted() {
            assert!(Instant::now() < until, "nobody asks the control loop");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.replace(|to| to.write_all(b"new\n")).unwrap();
        assert!(scraped.join().unwrap().ends_with("\r\n\r\nnew\n"));
    });
    assert!(!server.is_wanted());
    assert!(get(&server, "/metrics").ends_with("\r\n\r\nnew\n"), "the control loop is busy");
    // The first text may be still to come.
    let empty = Server::listen(&Address::Ip("127.0.0.1:0".parse().unwrap())).unwrap();
    assert!(get(&empty, "/metrics").starts_with("HTTP/1.1 503 "));
}

#[test]
fn health_is_that_of_the_control_loop() {
    assert!(get(&served(""), "/healthz").ends_with("\r\n\r\nok\n"));
    let shared = Shared::new(Instant::now().checked_sub(STUCK + Duration::from_secs(5)).unwrap()).unwrap();
    let trouble = shared.known().trouble.unwrap();
    assert!(trouble.starts_with("the control loop hasn't turned for 35 s"), "{trouble}");
    shared.turned.store(shared.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    assert_eq!(shared.known().trouble, None);
}

#[test]
fn slow_and_broken_clients_hold_up_nobody() {
    const LONG: &str = concat!("0123456789abcdef", "0123456789abcdef");
    let server = Server::listen(&Address::Ip("127.0.0.1:0".parse().unwrap())).unwrap();
    // More than the buffers of a socket take.
    let whole = 32 << 20;
    server.replace(|to| (0..whole / 32).try_for_each(|_| to.write_all(LONG.as_bytes()))).unwrap();
    let mut slow = connect(&server);
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut others = Vec::new();
    for _ in 0..100 {
        let mut other = connect(&server);
        // Some send nothing, some a line without an end, some close one side or both.
        match others.len() % 4 {
            0 => {}
            1 => other.write_all(b"GET /metrics").unwrap(),
            2 => other.shutdown(Shutdown::Write).unwrap(),
            _ => other.shutdown(Shutdown::Both).unwrap(),
        }
        others.push(other);
    }
    assert!(get(&server, "/healthz").ends_with("\r\n\r\nok\n"));
    // A line without an end is refused at some time, whatever its length.
    let mut endless = connect(&server);
    endless.write_all(b"GET /").unwrap();
    let mut wrote = 0;
    while wrote < 1 << 30 && endless.write_all(&[b'a'; 4096]).is_ok() {
        wrote += 4096;
    }
    assert!(wrote < 64 << 20, "{wrote} bytes of a request were taken");
    // A half-closed client still gets its response, whole.
    let mut half = connect(&server);
    half.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    half.read_to_end(&mut bytes).unwrap();
    let body = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(bytes.len() - body, whole);
    drop(slow);
}

#[test]
fn a_unix_socket_is_replaced_only_if_nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    let address = Address::Unix(path.clone());
    // As after a SIGKILL.
    drop(UnixListener::bind(&path).unwrap());
    let server = Server::listen(&address).unwrap();
    server.replace(|to| to.write_all(b"here\n")).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
    assert!(Server::listen(&address).is_err(), "in use");
    let scraped = response(UnixStream::connect(&path).unwrap(), "GET /metrics HTTP/1.1\r\n\r\n");
    assert!(scraped.ends_with("\r\n\r\nhere\n"), "{scraped}");
    drop(server);
    assert!(!path.exists());
    std::fs::write(&path, "a file").unwrap();
    assert!(Server::listen(&address).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[test]
fn a_socket_of_another_process_stays() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(folder.path().join("metrics.sock"));
    let one = Server::listen(&address).unwrap();
    std::fs::remove_file(folder.path().join("metrics.sock")).unwrap();
    let other = Server::listen(&address).unwrap();
    drop(one);
    assert!(folder.path().join("metrics.sock").exists());
    drop(other);
    assert!(!folder.path().join("metrics.sock").exists());
}

#[test]
fn a_listener_that_is_stuck_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    let stuck = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&stuck, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&stuck, 0).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
    assert!(Server::listen(&Address::Unix(path.clone())).is_err(), "in use");
    assert!(path.exists());
}

#[test]
fn a_flood_of_connections_is_served_slowly() {
    let server = served("");
    let began = Instant::now();
    let health = (0..=2 * MOST_ACCEPTS).map(|_| get(&server, "/healthz"));
    assert!(health.into_iter().all(|response| response.ends_with("\r\n\r\nok\n")));
    assert!(began.elapsed() >= Duration::from_secs(2), "the CPU time of the watch is theirs");
}
