//! Redis: a part of the keys is read twice a minute.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::client::{AT_ONCE, Client, STRIDE, Served, VALUE, each};
use super::service::{DATA, DISK, Service};
use super::{App, Loaded};
use crate::load::advance;

/// Keys, and those in use.
const KEYS: usize = 150_000;
const USED: usize = 40_000;

pub struct Redis;

impl App for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    /// Redis has all its data in memory, or in swap.
    fn begin(&self, cgroup: &Path, _all: bool) -> Result<Box<dyn Loaded>> {
        let socket = format!("{DATA}/redis.sock");
        let words = [
            "/usr/bin/redis-server",
            "--port",
            "0",
            "--unixsocket",
            &socket,
            "--save",
            "",
            "--dir",
            DATA,
            "--maxclients",
            "10",
        ];
        let server = Service::begin(cgroup, &words, Signal::TERM, &|| Connection::open().is_ok())?;
        fill()?;
        let client = Client::begin(each(USED), reader);
        Ok(Box::new(Served { server, client }))
    }
}

/// A connection to the server.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open() -> Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(format!("{DISK}{DATA}/redis.sock"))?)))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.get_mut().write_all(bytes)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        ensure!(line.ends_with("\r\n") && !line.starts_with('-'), "redis said {line:?}");
        Ok(line.trim_end().to_owned())
    }
}

/// Stores all keys: those in use first.
fn fill() -> Result<()> {
    let mut connection = Connection::open()?;
    let mut random = 1u64;
    let mut value = vec![0; VALUE];
    for from in (0..KEYS).step_by(100) {
        let mut request = Vec::new();
        for key in from..from + 100 {
            // Half of it compresses.
            for byte in &mut value[..VALUE / 2] {
                advance(&mut random);
                *byte = (random >> 56) as u8;
            }
            write!(request, "*3\r\n$3\r\nSET\r\n$10\r\nkey:{key:06}\r\n${VALUE}\r\n")?;
            request.extend_from_slice(&value);
            request.extend_from_slice(b"\r\n");
        }
        connection.send(&request)?;
        for _ in 0..100 {
            ensure!(connection.line()? == "+OK", "redis didn't store a key");
        }
    }
    Ok(())
}

/// Returns a function that reads the next keys.
fn reader() -> Result<impl FnMut() -> Result<()>> {
    let (mut connection, mut key) = (Connection::open()?, 0);
    let mut value = vec![0; VALUE + 2];
    Ok(move || {
        let mut request = Vec::new();
        write!(request, "*{}\r\n$4\r\nMGET\r\n", AT_ONCE + 1)?;
        for _ in 0..AT_ONCE {
            write!(request, "$10\r\nkey:{key:06}\r\n")?;
            key = (key + STRIDE) % USED;
        }
        connection.send(&request)?;
        connection.line()?;
        for _ in 0..AT_ONCE {
            ensure!(connection.line()? == format!("${VALUE}"), "redis didn't have a key");
            connection.0.read_exact(&mut value)?;
        }
        Ok(())
    })
}
