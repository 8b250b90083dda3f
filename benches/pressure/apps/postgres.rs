//! PostgreSQL under pgbench: selects by key, of a part of the rows.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::latency::Latencies;
use super::service::{self, DATA, DISK, Service};
use super::{App, Loaded};

const BIN: &str = "/usr/lib/postgresql/17/bin";

/// pgbench's unit of 100,000 rows, some 13 MB with the index.
const SCALE: u32 = 20;

/// The server, with this load.
pub struct Postgres {
    /// Rows in use, from the first on: a block of 8 KiB holds 61.
    pub rows: u32,
    /// Selects per second.
    pub rate: u32,
}

impl Postgres {
    /// A fifth of all rows: a block of them is read each 26 s on average, at random.
    pub const USUAL: Self = Self { rows: 400_000, rate: 250 };
}

impl App for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn begin(&self, cgroup: &Path, all: bool) -> Result<Box<dyn Loaded>> {
        let data = format!("{DATA}/pg");
        let is_new = !Path::new(&format!("{DISK}{data}")).exists();
        if is_new {
            let initdb = format!("{BIN}/initdb");
            service::run(&[&initdb, "-D", &data, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])?;
        }
        let server = || begin_server(cgroup, &data);
        let mut running = server()?;
        if is_new {
            let scale = SCALE.to_string();
            service::run(&[
                &format!("{BIN}/pgbench"),
                "-h",
                DATA,
                "-q",
                "-i",
                "-I",
                "dtGvp",
                "-s",
                &scale,
                "postgres",
            ])?;
            psql("CHECKPOINT")?;
            // What was written isn't part of the service's memory.
            running.end()?;
            std::fs::write("/proc/sys/vm/drop_caches", "3")?;
            running = server()?;
        }
        if all {
            psql("SELECT count(*), sum(abalance) FROM pgbench_accounts")?;
        }
        let script = format!("{DATA}/select.sql");
        let text = format!(
            "\\set row random(1, {})\nSELECT abalance FROM pgbench_accounts WHERE aid = :row;\n",
            self.rows
        );
        std::fs::write(format!("{DISK}{script}"), text)?;
        for log in logs()? {
            std::fs::remove_file(log)?;
        }
        let (rate, pgbench) = (self.rate.to_string(), format!("{BIN}/pgbench"));
        let load = service::command(
            None,
            &[
                &pgbench,
                "-h",
                DATA,
                "-f",
                &script,
                "-R",
                &rate,
                "-c",
                "4",
                "-j",
                "1",
                "-M",
                "prepared",
                "-n",
                "-T",
                "100000",
                "-l",
                &format!("--log-prefix={DATA}/pgbench"),
                "postgres",
            ],
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
        Ok(Box::new(Running { server: running, load }))
    }
}

fn begin_server(cgroup: &Path, data: &str) -> Result<Service> {
    let (postgres, sockets) = (format!("{BIN}/postgres"), format!("unix_socket_directories={DATA}"));
    Service::begin(
        cgroup,
        // The rest is as Debian has it, but for the page cache, which has most of the data.
        &[&postgres, "-D", data, "-c", &sockets, "-c", "listen_addresses=", "-c", "shared_buffers=32MB"],
        // Fast shutdown.
        Signal::INT,
        &|| psql("SELECT 1").is_ok(),
    )
}

fn psql(command: &str) -> Result<()> {
    service::run(&[&format!("{BIN}/psql"), "-h", DATA, "-q", "-c", command, "postgres"])
}

/// Returns the command of a base backup to standard output, of so many kilobytes per second.
pub fn backup(rate: &str) -> String {
    format!("{BIN}/pg_basebackup -h {DATA} -D - -F t -X none -c fast --max-rate={rate}")
}

/// Returns the paths of pgbench's logs.
fn logs() -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("{DISK}{DATA}"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("pgbench.") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

struct Running {
    server: Service,
    load: Child,
}

impl Loaded for Running {
    fn end(mut self: Box<Self>) -> Result<Latencies> {
        // pgbench writes its log out when it ends; a signal kills it, and with -T it ends when the
        // server does.
        self.server.end()?;
        std::thread::sleep(Duration::from_secs(1));
        if self.load.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.load), Signal::INT)?;
            self.load.wait()?;
        }
        let mut latencies = Latencies::default();
        for log in logs()? {
            for line in std::fs::read_to_string(log)?.lines() {
                let (ended, took) = transaction(line).with_context(|| format!("pgbench's log: {line}"))?;
                latencies.add(ended, took);
            }
        }
        Ok(latencies)
    }
}

/// Parses a line of pgbench's log: client, number, latency with the lag behind the schedule, script,
/// time of the end in seconds and microseconds, and that lag.
fn transaction(line: &str) -> Option<(SystemTime, Duration)> {
    let mut fields = line.split(' ').skip(2);
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (took, _script) = (number()?, number()?);
    let ended = Duration::from_secs(number()?) + Duration::from_micros(number()?);
    Some((SystemTime::UNIX_EPOCH + ended, Duration::from_micros(took)))
}
