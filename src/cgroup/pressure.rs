//! `memory.pressure`: how long tasks of the cgroup stood still for want of memory (PSI).

/// The `some` total of a pressure file's text: microseconds in which at least one task was stalled.
#[must_use]
pub fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// The `some` average over 10 s of a pressure file's text: hundredths of a percent, as exact as the kernel tells it.
#[must_use]
pub fn some_avg10(text: &str) -> Option<u16> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let (whole, hundredths) =
        line.split(' ').find_map(|field| field.strip_prefix("avg10="))?.split_once('.')?;
    Some(whole.parse::<u16>().ok()?.checked_mul(100)? + hundredths.parse::<u8>().map(u16::from).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read() {
        let text = "some avg10=0.12 avg60=0.03 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(some_total(text), Some(12345));
        assert_eq!(some_avg10(text), Some(12));
        assert_eq!(some_avg10("some avg10=100.00 avg60=1.00 total=1\n"), Some(10_000));
        assert_eq!((some_avg10(""), some_avg10("some avg10=x.y\n")), (None, None));
        assert_eq!(some_total(""), None);
        assert_eq!(some_total("full total=3\n"), None);
    }
}
