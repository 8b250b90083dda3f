//! Report lines on slab, on writes that freed more than requested, and on a doubtful measure.

use memctl::reclaim::{Report, Verdict};

use crate::output::format::size;

/// Returns the lines, with their labels.
pub fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let slab = (report.slab_reclaimed > 0).then(|| {
        let slab = size(report.slab_reclaimed);
        ("slab", format!("{slab} of the reclaimed memory: dentries and inodes, which the kernel frees along with the rest"))
    });
    // An excess within the tolerance needs no explanation.
    let overshot = report.overshot.filter(|_| report.verdict() == Some(Verdict::Over)).map(|write| {
        let (asked, fell) = (size(write.asked), size(write.fell));
        ("overshoot", format!("requested {asked}, freed {fell} before the kernel returned"))
    });
    let doubtful = report.measure_doubtful.then(|| ("doubtful", doubtful(report)));
    [slab, overshot, doubtful].into_iter().flatten().collect()
}

/// Returns the share of slab in the bytes reclaimed, as the end of a sentence.
pub fn share(report: &Report) -> String {
    let slab = Some(report.slab_reclaimed).filter(|&slab| slab > 0);
    slab.map_or_else(String::new, |slab| format!("; {} of the total are slab", size(slab)))
}

/// Returns the reason why the measure is in doubt.
fn doubtful(report: &Report) -> String {
    let fell = report.net_freed().map_or(0, |net| u64::try_from(net).unwrap_or(0));
    match report.left() {
        Some(left) if left > fell / 20 => format!(
            "the usage fell by {}, more than requested; the counters attribute {} to the application",
            size(fell),
            size(left)
        ),
        _ => format!("the usage fell by {}, more than requested, and no counter shows why", size(fell)),
    }
}
