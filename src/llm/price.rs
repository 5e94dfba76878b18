//! What tokens cost. Whole numbers of a millionth of a millionth of a dollar: a price of a few cents a
//! million tokens is exact, and sums are too.
use std::fmt;

use super::chat::Usage;

/// Millionths of a millionth of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(pub u64);

/// Of one token of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub input: Cost,
    pub cached_input: Cost,
    pub output: Cost,
}

impl Cost {
    /// US dollars a million tokens, in decimal with at most six places: what a token of it costs.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse_per_million(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no price: write US dollars a million tokens, such as 0.25, with at most six decimals"
            )
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(part) || whole.len() > 6 || part.len() > 6 {
            return Err(wrong());
        }
        let number = format!("{whole}{part:0<6}").parse();
        number.map(Self).map_err(|_| wrong())
    }
}

const DOLLAR: u64 = 1_000_000_000_000;

impl Cost {
    /// US dollars, in decimal with at most six places: 0.000001 to 1000000.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse_dollars(text: &str) -> Result<Self, String> {
        // A millionth of a million is a dollar.
        let micro = Self::parse_per_million(text).ok().filter(|it| it.0 > 0).ok_or_else(|| {
            format!(
                "`{text}` is no sum: write US dollars, such as 50.00, 0.000001 to 999999.999999"
            )
        })?;
        Ok(Self(micro.0 * (DOLLAR / 1_000_000)))
    }
}

impl Price {
    #[must_use]
    pub fn of(&self, usage: &Usage) -> Cost {
        let cached = usage.cached.min(usage.input);
        let parts = [
            (self.input, usage.input - cached),
            (self.cached_input, cached),
            (self.output, usage.output),
        ];
        let sum = parts.iter().fold(0_u64, |sum, (price, tokens)| {
            sum.saturating_add(price.0.saturating_mul(*tokens))
        });
        Cost(sum)
    }
}

/// Dollars, with all decimals that say something.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:012}", self.0 / DOLLAR, self.0 % DOLLAR);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Cost::parse_per_million(text).ok().map(|it| it.0), expected, "{text}");
        };
        check("0.25", Some(250_000));
        check("2", Some(2_000_000));
        check("0.000001", Some(1));
        check("0", Some(0));
        check("999999.999999", Some(999_999_999_999));
        for wrong in ["", ".5", "1.", "-1", "1e3", "0.0000001", "1000000", "1,5", "0x1", "1.2.3"] {
            check(wrong, None);
        }
    }

    #[test]
    fn sums_are_exact() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(Cost::parse_dollars(text).ok().map(|it| it.0), expected, "{text}");
        };
        check("50.00", Some(50_000_000_000_000));
        check("0.000001", Some(1_000_000));
        check("999999.999999", Some(999_999_999_999_000_000));
        for wrong in ["", "0", "0.00", "-1", "1000000", "0.0000001", "1e3", "$5"] {
            check(wrong, None);
        }
        assert_eq!(Cost::parse_dollars("50.10").unwrap().to_string(), "50.1");
    }

    #[test]
    fn cached_tokens_have_their_own_price() {
        let per_million = |text| Cost::parse_per_million(text).unwrap();
        let price = Price {
            input: per_million("0.25"),
            cached_input: per_million("0.025"),
            output: per_million("2"),
        };
        let usage = Usage { input: 1_000, cached: 400, output: 100, ..Usage::default() };
        // 600 at 0.25, 400 at 0.025, 100 at 2.00, a million each.
        assert_eq!(price.of(&usage).to_string(), "0.00036");
        let lies = Usage { input: 1, cached: 5, ..Usage::default() };
        assert_eq!(price.of(&lies), Cost(25_000));
        assert_eq!(Cost(0).to_string(), "0");
        assert_eq!(Cost(1).to_string(), "0.000000000001");
        assert_eq!(Cost(3_000_000_000_000).to_string(), "3");
    }
}
