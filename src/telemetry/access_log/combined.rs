//! One request as one line of the combined log format, as Apache and nginx write it and what reads their
//! logs expects: `client - consumer [time] "request" status bytes "referer" "agent"`. It says less than
//! the JSON line does. What could break a line or a quote is written as `\xHH`.
use std::{io::Write, net::IpAddr};

use super::record::{Clock, LONG, Record, SHORT};

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Appends the line, with its line feed.
pub(super) fn write(record: &Record<'_>, clock: &mut Clock, line: &mut Vec<u8>) {
    match record.client_ip.to_canonical() {
        IpAddr::V4(address) if address.is_unspecified() => line.push(b'-'),
        // Writing to a vector cannot fail.
        address => drop(write!(line, "{address}")),
    }
    line.extend_from_slice(b" - ");
    word(line, record.consumer.map(str::as_bytes));
    line.extend_from_slice(b" [");
    time(line, clock.read(record.time.as_secs()));
    line.extend_from_slice(b"] \"");
    if record.method.is_empty() {
        line.push(b'-');
    } else {
        escape(line, record.method.as_bytes(), SHORT);
        line.push(b' ');
        escape(line, record.path, LONG);
        if let Some(query) = record.query {
            line.push(b'?');
            escape(line, query, LONG);
        }
        line.push(b' ');
        escape(line, record.protocol.as_bytes(), SHORT);
    }
    let _ = write!(line, "\" {} {} \"", record.status, record.bytes_out);
    word(line, record.referer);
    line.extend_from_slice(b"\" \"");
    word(line, record.user_agent);
    line.extend_from_slice(b"\"\n");
}

/// `25/Nov/2026:10:44:53 +0000` of `2026-11-25T10:44:53`.
fn time(line: &mut Vec<u8>, text: &[u8]) {
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, it| sum * 10 + usize::from(it - b'0'));
    let month = MONTHS.get(number(part(5..7)).saturating_sub(1)).copied().unwrap_or(b"Jan");
    for piece in [part(8..10), b"/", month, b"/", part(0..4), b":", part(11..19), b" +0000"] {
        line.extend_from_slice(piece);
    }
}

/// `-` stands for what is not there.
fn word(line: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) if !value.is_empty() => escape(line, value, SHORT),
        _ => line.push(b'-'),
    }
}

fn escape(line: &mut Vec<u8>, value: &[u8], at_most: usize) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    for byte in value.get(..at_most).unwrap_or(value) {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                line.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(*byte)]);
            }
            plain => line.push(*plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::record::tests::record, *};

    fn line(record: &Record<'_>) -> String {
        let mut line = Vec::new();
        write(record, &mut Clock::new(), &mut line);
        String::from_utf8(line).unwrap()
    }

    #[track_caller]
    fn check(record: &Record<'_>, expected: &str) {
        assert_eq!(line(record), format!("{expected}\n"));
    }

    #[test]
    fn it_is_what_others_write() {
        check(
            &record(),
            r#"192.0.2.1 - - [01/Jan/2026:00:00:00 +0000] "GET /orders/7 HTTP/1.1" 200 512 "-" "-""#,
        );
        let full = Record {
            time: std::time::Duration::from_secs(1_795_603_493),
            client_ip: "::ffff:10.0.0.1".parse().unwrap(),
            consumer: Some("acme"),
            query: Some(b"a=1"),
            referer: Some(b"https://a.test/"),
            user_agent: Some(b"curl/8 \"x\"\n\xff\\"),
            ..record()
        };
        check(
            &full,
            concat!(
                r#"10.0.0.1 - acme [25/Nov/2026:10:44:53 +0000] "GET /orders/7?a=1 HTTP/1.1" 200 512 "#,
                r#""https://a.test/" "curl/8 \x22x\x22\x0A\xFF\x5C""#
            ),
        );
        let unborn = Record { method: "", client_ip: [0, 0, 0, 0].into(), ..record() };
        check(&unborn, r#"- - - [01/Jan/2026:00:00:00 +0000] "-" 200 512 "-" "-""#);
    }

    proptest! {
        #[test]
        fn whatever_is_sent_it_is_one_line_of_six_quotes(
            path: Vec<u8>, query: Option<Vec<u8>>, agent: Option<Vec<u8>>, referer: Option<Vec<u8>>,
        ) {
            let record = Record {
                path: &path,
                query: query.as_deref(),
                user_agent: agent.as_deref(),
                referer: referer.as_deref(),
                ..record()
            };
            let line = line(&record);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(line.matches('"').count(), 6);
        }
    }
}
