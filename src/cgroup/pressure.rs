//! `memory.pressure`: how long tasks of the cgroup stood still for want of memory (PSI).

/// The `some` total of a pressure file's text: microseconds in which at least one task was stalled.
#[must_use]
pub fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// A pressure file: `some` of the tasks stalled, or all of them (`full`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one task was stalled.
    pub some: Stall,
    /// All tasks were; `None` where the kernel doesn't tell.
    pub full: Option<Stall>,
}

/// How long tasks were stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Over the last 10 s, hundredths of a percent.
    pub avg10: u16,
    /// In all, microseconds.
    pub total: u64,
}

impl Pressure {
    /// Reads the text of a pressure file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self { some: stall(text, "some ")?, full: stall(text, "full ") })
    }
}

fn stall(text: &str, of: &str) -> Option<Stall> {
    let line = text.lines().find_map(|line| line.strip_prefix(of))?;
    let field = |key| line.split(' ').find_map(|field| field.strip_prefix(key));
    let (whole, hundredths) = field("avg10=")?.split_once('.')?;
    let avg10 =
        whole.parse::<u16>().ok()?.checked_mul(100)? + hundredths.parse::<u8>().map(u16::from).ok()?;
    Some(Stall { avg10, total: field("total=")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read() {
        let text = "some avg10=0.12 avg60=0.03 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(some_total(text), Some(12345));
        let pressure = Pressure::parse(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.full.unwrap().total), (12, 9));
        let all = Pressure::parse("some avg10=100.00 avg60=1.00 total=1\n").unwrap();
        assert_eq!((all.some.avg10, all.full), (10_000, None));
        assert_eq!((Pressure::parse(""), Pressure::parse("some avg10=x.y total=1\n")), (None, None));
        assert_eq!(some_total(""), None);
        assert_eq!(some_total("full total=3\n"), None);
    }
}
