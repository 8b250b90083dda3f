//! Scales of axes: units in which values read well.

/// Unit of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Percent.
    Percent,
}

/// Scale of an axis: the size of its unit, and the name behind each value.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Value of a 1 on the axis.
    pub one: f64,
    /// The unit's name.
    pub name: String,
}

impl Scale {
    /// Returns the scale for values up to `most`.
    pub fn of(unit: Unit, most: f64) -> Self {
        const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if unit == Unit::Percent {
            return Self { one: 1.0, name: "%".into() };
        }
        // The unit fits at least twice.
        let steps =
            (0..NAMES.len() - 1).take_while(|&step| most >= 2.0 * 1024f64.powi(step as i32 + 1)).count();
        let a_second = if unit == Unit::BytesPerSecond { "/s" } else { "" };
        Self { one: 1024f64.powi(steps as i32), name: format!("{}{a_second}", NAMES[steps]) }
    }

    /// Returns the scale for times up to `span` seconds.
    pub fn of_time(span: f64) -> Self {
        let (one, name) = match span {
            span if span < 300.0 => (1.0, "s"),
            span if span < 4.0 * 3600.0 => (60.0, "min"),
            span if span < 4.0 * 86400.0 => (3600.0, "h"),
            _ => (86400.0, "days"),
        };
        Self { one, name: name.into() }
    }

    /// Formats a value given in the axis' own unit.
    pub fn written(&self, figure: f64) -> String {
        // Values that are only rounding errors become 0, without a sign.
        let figure = (figure * 1000.0).round() / 1000.0 + 0.0;
        format!("{figure} {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_a_unit_in_which_they_are_small() {
        let mib = f64::from(1 << 20);
        assert_eq!(Scale::of(Unit::Bytes, 256.0 * mib).name, "MiB");
        assert_eq!(Scale::of(Unit::Bytes, 1.5 * 1024.0 * mib).name, "MiB");
        assert_eq!(Scale::of(Unit::BytesPerSecond, 3.0 * 1024.0 * mib).name, "GiB/s");
        assert_eq!(Scale::of(Unit::Bytes, f64::MAX).name, "EiB");
        assert_eq!(Scale::of(Unit::Percent, 3.0).written(0.1 + 0.2), "0.3 %");
        assert_eq!(
            (Scale::of_time(120.0).name, Scale::of_time(7200.0).written(30.0)),
            ("s".into(), "30 min".into())
        );
    }
}
