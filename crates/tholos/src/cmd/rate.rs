//! Sizes and rates as people type and read them: `20MB/s`, `612 MB`.

/// Names of units, and their bytes.
const UNITS: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];
/// What else is understood.
const BINARY_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A rate in bytes a second: a number and a unit, as in `20MB/s`, `1.5 GB` or `500000`; `none` is 0.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let misread = || format!("\"{text}\" is no rate: it takes a number with a unit, such as 20MB/s, or none");
    let lower = text.trim().to_ascii_lowercase();
    if lower == "none" {
        return Ok(0);
    }
    let amount = lower.strip_suffix("/s").unwrap_or(&lower).trim_end();
    let units = BINARY_UNITS.iter().chain(&UNITS);
    let unit = units.map(|(name, bytes)| (name.to_ascii_lowercase(), *bytes));
    let (number, bytes) = unit
        .filter_map(|(name, bytes)| Some((amount.strip_suffix(name.as_str())?, bytes)))
        .next()
        .unwrap_or((amount, 1));
    let number: f64 = number.trim_end().parse().map_err(|_| misread())?;
    let rate = number * bytes as f64;
    if rate.is_finite() && (0.0..1e15).contains(&rate) { Ok(rate.round() as u64) } else { Err(misread()) }
}

/// The unit for figures up to `most` bytes.
pub(crate) fn unit(most: u64) -> (&'static str, u64) {
    UNITS.into_iter().find(|(_, bytes)| most >= *bytes).unwrap_or(("B", 1))
}

/// A figure in a unit: with a decimal where it is below 100 and not whole.
pub(crate) fn in_unit(bytes: u64, (_, unit_bytes): (&str, u64)) -> String {
    let figure = bytes as f64 / unit_bytes as f64;
    if figure >= 99.95 {
        return format!("{figure:.0}");
    }
    let text = format!("{figure:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A size with its unit.
pub(crate) fn size(bytes: u64) -> String {
    let unit = unit(bytes);
    format!("{} {}", in_unit(bytes, unit), unit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_type_them() {
        for (text, expected) in [
            ("20MB/s", 20_000_000),
            ("20mb", 20_000_000),
            ("1.5 GB/s", 1_500_000_000),
            ("64KiB/s", 65_536),
            ("500kB/s", 500_000),
            ("1000000", 1_000_000),
            ("7 B/s", 7),
            ("none", 0),
            ("0", 0),
        ] {
            assert_eq!(parse_rate(text), Ok(expected), "{text}");
        }
        for text in ["", "fast", "20 m/s", "-1MB", "inf", "nan MB", "MB/s", "1e30GB"] {
            assert!(parse_rate(text).unwrap_err().contains("is no rate"), "{text}");
        }
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 999, 1_000, 48_300_000, 612_000_000, 1_250_000_000].map(size);
        assert_eq!([999, 1_000, 999_999, 7_000_000_000].map(|most| unit(most).0), ["B", "kB", "kB", "GB"]);
        assert_eq!(sizes, ["0 B", "999 B", "1 kB", "48.3 MB", "612 MB", "1.2 GB"]);
    }
}
