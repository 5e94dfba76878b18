use proptest::prelude::*;

use super::*;

fn kept(url: &str, fields: &[(String, Vec<u8>)], numbers: (u64, u32, Option<[u8; 16]>)) -> Kept {
    let (mut response, ()) = http::Response::new(()).into_parts();
    response.status = StatusCode::NOT_FOUND;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let (seconds, nanos, variance) = numbers;
    let time = UNIX_EPOCH + Duration::new(seconds, nanos);
    Kept {
        response: ResponseHeader::from(response),
        fresh_until: time,
        created: UNIX_EPOCH,
        epoch: variance.map(|_| time),
        stale_while_revalidate: nanos,
        stale_if_error: 0,
        variance,
        label: Label {
            url: url.into(),
            route: "r".into(),
            tags: fields.iter().map(|it| it.0.as_str().into()).collect(),
            max_body: seconds,
        },
    }
}

/// Everything that it holds, comparable.
fn said(kept: &Kept) -> String {
    format!("{kept:?}")
}

fn split(record: &[u8]) -> (&[u8; HEADER], &[u8]) {
    record.split_first_chunk().unwrap()
}

#[test]
fn purges_are_read_as_they_were_written() {
    let it = |text: &str| text.to_owned();
    for what in [
        What::Key,
        What::Purge(Purge::Url(it("a.test/x"))),
        What::Purge(Purge::Prefix(it(""))),
        What::Purge(Purge::Tag(it("ü"))),
        What::Purge(Purge::Route(it("r"))),
        What::Purge(Purge::Everything),
    ] {
        let record = purge(&what, [3; 16], 7);
        let (bytes, head) = split(&record);
        let header = Header::decode(bytes).unwrap();
        assert_eq!((header.stamp, header.key), (7, [3; 16]));
        assert_eq!(header.length(), record.len() as u64);
        assert_eq!(header.what(head), Some(what));
    }
    let endless = What::Purge(Purge::Tag("t".repeat(MOST_HEAD as usize + 1)));
    let record = purge(&endless, [3; 16], 7);
    assert_eq!(record.len(), HEADER);
    assert!(Header::decode(split(&record).0).is_some());
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written(
        url in "\\PC{0,80}",
        fields in proptest::collection::vec(("[a-z][a-z0-9-]{0,12}", "[ -~]{0,30}"), 0..8),
        numbers in (0..1u64 << 40, 0..1_000_000_000u32, any::<Option<[u8; 16]>>()),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        (key, stamp) in any::<([u8; 16], u64)>(),
    ) {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        let kept = kept(&url, &fields, numbers);
        let (header, before) = entry(key, stamp, &kept, &body).unwrap();
        let (bytes, head) = split(&before);
        prop_assert_eq!(Header::decode(bytes), Some(header));
        prop_assert_eq!(header.what(head), Some(What::Entry));
        prop_assert!(header.has_body(&body));
        prop_assert_eq!(said(&decode_head(head).unwrap()), said(&kept));
    }

    #[test]
    fn one_changed_byte_is_noticed(
        body in proptest::collection::vec(any::<u8>(), 1..100),
        (at, by) in (any::<prop::sample::Index>(), 1..=255u8),
    ) {
        let fields = [("etag".to_owned(), b"\"1\"".to_vec())];
        let kept = kept("a.test/", &fields, (9, 9, None));
        let (_, before) = entry([1; 16], 2, &kept, &body).unwrap();
        let mut record = [before.as_slice(), &body].concat();
        let at = at.index(record.len());
        record[at] ^= by;
        let (bytes, rest) = split(&record);
        let (head, body) = rest.split_at(before.len() - HEADER);
        let is_taken = Header::decode(bytes)
            .is_some_and(|it| it.what(head) == Some(What::Entry) && it.has_body(body));
        prop_assert!(!is_taken, "byte {at}");
    }

    #[test]
    fn nothing_else_is_taken_for_a_record(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        if let Some(header) = bytes.first_chunk() {
            prop_assert_eq!(Header::decode(header), None);
        }
        // Whatever it is, it is decoded or refused, and what is decoded can be written.
        if let Some(kept) = decode_head(&bytes) {
            let again = encode_head(&kept).and_then(|it| decode_head(&it));
            prop_assert_eq!(again.as_ref().map(said), Some(said(&kept)));
        }
    }

    #[test]
    fn a_head_that_is_cut_or_longer_is_refused(
        (cut, extra) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let fields = [("etag".to_owned(), b"\"1\"".to_vec())];
        let head = encode_head(&kept("a.test/", &fields, (9, 9, None))).unwrap();
        let cut = cut.index(head.len());
        // Between two fields it can be cut without being noticed here; its digest tells.
        if let Some(kept) = decode_head(&head[..cut]) {
            prop_assert!(kept.response.headers.is_empty());
        }
        prop_assert!(decode_head(&[head.as_slice(), &[extra]].concat()).is_none());
    }
}
