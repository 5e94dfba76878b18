//! Durations as written: one whole number and one unit (`250ms`, `30s`, `5m`, `1h`, `1d`). No
//! fractions, no sums such as `1h30m`, and no bare numbers, whose unit everyone guesses otherwise.
use std::time::Duration;

/// The units and their length in microseconds, longest first.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// A hundred years. Adding more than this to a clock could overflow it.
const LONGEST_DAYS: u64 = 36_500;
const LONGEST: Duration = Duration::from_secs(LONGEST_DAYS * 86_400);

/// From `500us`, `250ms`, `30s`, `5m`, `1h` or `1d`; zero needs a unit too. At most 36500d.
///
/// # Errors
/// What to write instead. The text itself is repeated only where it is a number and a known unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(FORM.to_owned());
    }
    if unit.is_empty() {
        return Err(format!("a duration needs a unit: write {number}s"));
    }
    let Some((_, micros)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(FORM.to_owned());
    };
    let too_long = || format!("a duration is at most {LONGEST_DAYS}d");
    let micros = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*micros))
        .ok_or_else(too_long)?;
    let duration = Duration::from_micros(micros);
    if duration > LONGEST { Err(too_long()) } else { Ok(duration) }
}

const FORM: &str = "not a duration: write one whole number and one unit of us, ms, s, m, h, d, \
                    such as 250ms or 30s";

/// As `parse` reads it, in the longest unit that divides it. Below a microsecond is cut off.
#[must_use]
pub fn format(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(_, length)| micros.is_multiple_of(u128::from(*length)))
        .map_or_else(String::new, |(unit, length)| {
            format!("{}{unit}", micros / u128::from(*length))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Duration) {
        assert_eq!(parse(text), Ok(expected), "{text}");
        assert_eq!(parse(&format(expected)), Ok(expected), "{text} written back");
    }

    fn check_refused(text: &str, part: &str) {
        let why = parse(text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }

    #[test]
    fn a_number_and_a_unit() {
        check("500us", Duration::from_micros(500));
        check("250ms", Duration::from_millis(250));
        check("30s", Duration::from_secs(30));
        check("5m", Duration::from_secs(300));
        check("1h", Duration::from_secs(3600));
        check("1d", Duration::from_secs(86_400));
        check("0s", Duration::ZERO);
        check("007s", Duration::from_secs(7));
        check("36500d", LONGEST);
    }

    #[test]
    fn a_bare_number_is_told_its_unit() {
        check_refused("30", "write 30s");
        check_refused("0", "write 0s");
    }

    #[test]
    fn anything_else_is_told_the_form() {
        for text in ["", "s", "-1s", "1.5s", "1 s", "1h30m", "30S", "30sec", "1w", "ſ", "٣s"] {
            check_refused(text, "one whole number and one unit");
        }
    }

    #[test]
    fn overflow_is_refused() {
        check_refused("36501d", "at most 36500d");
        check_refused("18446744073709551615s", "at most 36500d");
        check_refused("99999999999999999999999us", "at most 36500d");
    }

    #[test]
    fn written_in_the_longest_unit_that_divides() {
        assert_eq!(format(Duration::from_secs(90)), "90s");
        assert_eq!(format(Duration::from_secs(7200)), "2h");
        assert_eq!(format(Duration::from_micros(1_500)), "1500us");
        assert_eq!(format(Duration::from_nanos(999)), "0s");
        assert!(!format(Duration::MAX).is_empty());
    }
}
