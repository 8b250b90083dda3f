//! `memory.pressure`: how long tasks of the cgroup stood still for want of memory (PSI).

/// The `some` total of a pressure file's text: microseconds in which at least one task was stalled.
#[must_use]
pub fn some_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read() {
        let text = "some avg10=0.12 avg60=0.03 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(some_total(text), Some(12345));
        assert_eq!(some_total(""), None);
        assert_eq!(some_total("full total=3\n"), None);
    }
}
