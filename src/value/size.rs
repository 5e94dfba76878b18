//! Sizes in bytes as written: `512`, `64KiB`, `10MiB`, `1GiB`. Powers of 1024 only: `KB` and `MB`
//! mean 1000 to some and 1024 to others, so they are refused.

/// The units and their length in bytes, longest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Bytes, from `0`, `512`, `512B`, `64KiB`, `10MiB`, `1GiB` or `1TiB`.
///
/// # Errors
/// What to write instead. Beyond `u64` is an error too.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(FORM.to_owned());
    }
    let length = if unit.is_empty() {
        1
    } else if let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) {
        *length
    } else {
        return Err(match binary(unit) {
            Some(binary) => format!("sizes are in powers of 1024: write {number}{binary}"),
            None => FORM.to_owned(),
        });
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(length))
        .ok_or_else(|| format!("a size is at most {} bytes", u64::MAX))
}

const FORM: &str = "not a size: write a whole number of bytes, or one with KiB, MiB or GiB, \
                    such as 64KiB";

/// The unit that is meant by `k`, `kb`, `KB`, `mib` and so on.
fn binary(unit: &str) -> Option<&'static str> {
    let unit = unit.to_ascii_uppercase();
    let prefix = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    match prefix {
        "K" => Some("KiB"),
        "M" => Some("MiB"),
        "G" => Some("GiB"),
        "T" => Some("TiB"),
        _ => None,
    }
}

/// As `parse` reads it, in the longest unit that divides it.
#[must_use]
pub fn format(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(unit, length)| *unit != "B" && bytes != 0 && bytes.is_multiple_of(*length))
        .map_or_else(|| bytes.to_string(), |(unit, length)| format!("{}{unit}", bytes / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: u64) {
        assert_eq!(parse(text), Ok(expected), "{text}");
        assert_eq!(parse(&format(expected)), Ok(expected), "{text} written back");
    }

    fn check_refused(text: &str, part: &str) {
        let why = parse(text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }

    #[test]
    fn a_number_with_or_without_a_unit() {
        check("0", 0);
        check("512", 512);
        check("512B", 512);
        check("64KiB", 65_536);
        check("10MiB", 10_485_760);
        check("1GiB", 1_073_741_824);
        check("2TiB", 2_199_023_255_552);
        check("18446744073709551615", u64::MAX);
    }

    #[test]
    fn a_decimal_or_misspelt_unit_is_told_the_binary_one() {
        check_refused("64KB", "write 64KiB");
        check_refused("10MB", "write 10MiB");
        check_refused("1g", "write 1GiB");
        check_refused("5mib", "write 5MiB");
    }

    #[test]
    fn anything_else_is_told_the_form() {
        for text in ["", "KiB", "-1", "1.5MiB", "1 KiB", "1KiB2", "1PB2", "1IB", "٣"] {
            check_refused(text, "not a size");
        }
    }

    #[test]
    fn overflow_is_refused() {
        check_refused("18446744073709551616", "at most");
        check_refused("17179869184GiB", "at most");
    }

    #[test]
    fn written_in_the_longest_unit_that_divides() {
        assert_eq!(format(0), "0");
        assert_eq!(format(1000), "1000");
        assert_eq!(format(1536), "1536");
        assert_eq!(format(10_485_760), "10MiB");
    }
}
