//! When to ask for a token next.
use std::time::Duration;

/// Between two questions at least, however often an upstream refuses the token.
pub const LEAST: Duration = Duration::from_secs(30);
/// Where a token does not say how long it holds.
const UNKNOWN: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long after it was asked for a token is renewed: at 70 to 80 percent of its life, as `chance` (0 to
/// 1) says, so that many gateways do not come at the same moment.
pub fn renewal(lifetime: Option<Duration>, chance: f64) -> Duration {
    let part = 0.7 + 0.1 * chance.clamp(0.0, 1.0);
    lifetime.unwrap_or(UNKNOWN).min(LONGEST).mul_f64(part).max(FIRST_PAUSE)
}

/// How long after a question that failed the next is put; twice as long each time, less up to a third.
pub fn again(failures_in_a_row: u32, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures_in_a_row.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(1.0 - chance.clamp(0.0, 1.0) / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let check = |lifetime: Option<u64>, chance: f64, expected: f64| {
            let found = renewal(lifetime.map(Duration::from_secs), chance).as_secs_f64();
            assert!((found - expected).abs() < 0.001, "{lifetime:?} {chance}: {found}");
        };
        check(Some(600), 0.0, 420.0);
        check(Some(600), 1.0, 480.0);
        check(Some(3600), 0.5, 2700.0);
        check(None, 0.0, 210.0);
        check(Some(u64::MAX), 0.0, 60480.0);
        check(Some(10), 0.0, 7.0);
        check(Some(0), 0.0, 1.0);
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_pauses() {
        let check = |failures, chance: f64, expected: f64| {
            let found = again(failures, chance).as_secs_f64();
            assert!((found - expected).abs() < 0.001, "{failures} {chance}: {found}");
        };
        check(1, 0.0, 1.0);
        check(2, 0.0, 2.0);
        check(6, 0.0, 32.0);
        check(7, 0.0, 60.0);
        check(u32::MAX, 0.0, 60.0);
        check(7, 1.0, 40.0);
    }
}
