//! A service in a Java virtual machine: a part of what its heap has is read twice a minute.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::client::{AT_ONCE, Client, STRIDE, Served, VALUE, each};
use super::latency::Latencies;
use super::service::{self, DATA, DISK, Service};
use super::{App, Loaded};

const BIN: &str = "/usr/lib/jvm/java-21-openjdk-amd64/bin";
const SOURCE: &str = include_str!("Service.java");

/// Values, and those in use.
const KEYS: usize = 100_000;
const USED: usize = 25_000;

pub struct Java;

impl App for Java {
    fn name(&self) -> &'static str {
        "java"
    }

    /// The heap has all the data.
    fn begin(&self, cgroup: &Path, _all: bool) -> Result<Box<dyn Loaded>> {
        let folder = format!("{DATA}/java");
        if !Path::new(&format!("{DISK}{folder}/Service.class")).exists() {
            std::fs::write(format!("{DISK}{DATA}/Service.java"), SOURCE)?;
            service::run(&[&format!("{BIN}/javac"), "-d", &folder, &format!("{DATA}/Service.java")])?;
        }
        let socket = format!("{DATA}/java.sock");
        let _ = std::fs::remove_file(format!("{DISK}{socket}"));
        let numbers = [KEYS, VALUE, AT_ONCE, STRIDE, USED].map(|number| number.to_string());
        let java = format!("{BIN}/java");
        // A heap as large as it may get, and twice as large as the data, as is usual.
        let mut words = vec![&*java, "-Xms400m", "-Xmx400m", "-Xlog:gc", "-cp", &folder, "Service", &socket];
        words.extend(numbers.iter().map(String::as_str));
        let server = Service::begin(cgroup, &words, Signal::TERM, &|| connect().is_ok())?;
        let client = Client::begin(each(USED), || {
            let (mut socket, mut key) = (connect()?, 0);
            let mut answer = vec![0; AT_ONCE * VALUE];
            Ok(move || {
                socket.write_all(&u32::try_from(key)?.to_be_bytes())?;
                socket.read_exact(&mut answer).context("java's answer")?;
                key = (key + AT_ONCE * STRIDE) % USED;
                Ok(())
            })
        });
        Ok(Box::new(Running(Served { server, client })))
    }
}

fn connect() -> Result<UnixStream> {
    Ok(UnixStream::connect(format!("{DISK}{DATA}/java.sock"))?)
}

/// The service, whose log tells of its collector.
struct Running(Served);

impl Loaded for Running {
    fn end(self: Box<Self>) -> Result<Latencies> {
        let latencies = Box::new(self.0).end()?;
        println!("  longest pauses: {}", pauses(&service::log()));
        Ok(latencies)
    }
}

/// Returns the longest pause of each kind of collection in the machine's log, with their number.
fn pauses(log: &str) -> String {
    let mut kinds = BTreeMap::<&str, (f64, u32)>::new();
    for line in log.lines() {
        // `[1.234s][info][gc] GC(0) Pause Young (Normal) (G1 Evacuation Pause) 107M->9M(387M) 12.345ms`
        let Some((_, pause)) = line.split_once(") Pause ") else { continue };
        let kind = pause.split(' ').next().unwrap_or(pause);
        let took = pause.rsplit(' ').next().and_then(|took| took.strip_suffix("ms")?.parse::<f64>().ok());
        let (longest, count) = kinds.entry(kind).or_default();
        (*longest, *count) = (longest.max(took.unwrap_or(0.0)), *count + 1);
    }
    let told = kinds.iter().map(|(kind, (longest, count))| format!("{kind} {longest:.0} ms of {count}"));
    told.collect::<Vec<_>>().join(", ")
}
