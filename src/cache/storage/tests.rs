use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pingora::{cache::trace::Span, http::ResponseHeader};
use proptest::prelude::*;

use super::*;

fn store(memory: u64) -> &'static Store {
    Box::leak(Box::new(Store::new(memory)))
}

pub fn key(url: &str) -> CacheKey {
    CacheKey::new(url, "")
}

pub fn meta(url: &str) -> CacheMeta {
    let now = SystemTime::now();
    let mut header = ResponseHeader::build_no_case(200, None).unwrap();
    header.insert_header("etag", "\"1\"").unwrap();
    let mut meta = CacheMeta::new(now + Duration::from_secs(60), now, 0, 0, header);
    meta.extensions_mut().insert(Label {
        url: url.into(),
        route: "r".into(),
        tags: Arc::new(["t".into()]),
        max_body: 1000,
    });
    meta
}

pub fn trace() -> SpanHandle {
    Span::inactive().handle()
}

pub async fn put(store: &'static Store, url: &str, body: &'static str) {
    let mut miss = store.get_miss_handler(&key(url), &meta(url), &trace()).await.unwrap();
    miss.write_body(Bytes::from_static(body.as_bytes()), true).await.unwrap();
    miss.finish().await.unwrap();
}

pub async fn get(store: &'static Store, url: &str) -> Option<String> {
    let (_, mut hit) = store.lookup(&key(url), &trace()).await.unwrap()?;
    let mut body = Vec::new();
    while let Some(chunk) = hit.read_body().await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    Some(String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn an_entry_is_found_with_its_head_and_its_ranges() {
    let store = store(1 << 20);
    assert_eq!(get(store, "a/").await, None);
    put(store, "a/", "hello").await;
    assert_eq!(get(store, "a/").await.unwrap(), "hello");
    let (meta, mut hit) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    assert_eq!(meta.headers()["etag"], "\"1\"");
    hit.seek(1, Some(3)).unwrap();
    assert_eq!(hit.read_body().await.unwrap().unwrap(), "el");
    assert!(hit.seek(9, None).is_err());
}

#[tokio::test]
async fn a_write_that_is_given_up_never_was() {
    let store = store(1 << 20);
    let mut miss = store.get_miss_handler(&key("a/"), &meta("a/"), &trace()).await.unwrap();
    miss.write_body(Bytes::from_static(b"half"), false).await.unwrap();
    let (_, mut waiting) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    assert_eq!(waiting.read_body().await.unwrap().unwrap(), "half");
    drop(miss);
    assert!(waiting.read_body().await.is_err());
    assert_eq!(get(store, "a/").await, None);
    assert_eq!(store.statistics().used, 0);
    assert!(store.fills.lock().is_empty());
}

#[tokio::test]
async fn purges_reach_what_is_stored_and_what_is_being_stored() {
    for purge in [
        Purge::Url("a/x".to_owned()),
        Purge::Prefix("a/".to_owned()),
        Purge::Tag("t".to_owned()),
        Purge::Route("r".to_owned()),
        Purge::Everything,
    ] {
        let store = store(1 << 20);
        put(store, "a/x", "old").await;
        let mut miss = store.get_miss_handler(&key("a/x"), &meta("a/x"), &trace()).await.unwrap();
        miss.write_body(Bytes::from_static(b"new"), true).await.unwrap();
        store.purge_all(&purge);
        assert_eq!(get(store, "a/x").await, None, "{purge:?}");
        miss.finish().await.unwrap();
        assert_eq!(get(store, "a/x").await, None, "{purge:?}");
        put(store, "a/x", "newer").await;
        assert_eq!(get(store, "a/x").await.unwrap(), "newer", "{purge:?}");
    }
    let store = store(1 << 20);
    put(store, "a/x", "kept").await;
    for other in [
        Purge::Url("a/y".to_owned()),
        Purge::Prefix("b/".to_owned()),
        Purge::Tag("u".to_owned()),
        Purge::Route("s".to_owned()),
    ] {
        store.purge_all(&other);
        assert!(get(store, "a/x").await.is_some(), "{other:?}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_that_is_too_large_is_remembered_as_such() {
    let store = store(1 << 20);
    let mut miss = store.get_miss_handler(&key("a/"), &meta("a/"), &trace()).await.unwrap();
    let tag = miss.streaming_write_tag().map(<[u8]>::to_vec);
    let read = store.lookup_streaming_write(&key("a/"), tag.as_deref(), &trace()).await;
    let (_, mut reader) = read.unwrap().unwrap();
    miss.write_body(Bytes::from(vec![1; 2000]), false).await.unwrap();
    assert!(store.is_known_large(&key("a/")));
    assert_eq!(get(store, "a/").await, None);
    assert_eq!(reader.read_body().await.unwrap().unwrap().len(), 2000);
    miss.finish().await.unwrap();
    assert!(reader.read_body().await.unwrap().is_none());
    assert_eq!(get(store, "a/").await, None);
}

#[tokio::test]
async fn a_stored_head_keeps_no_buffer_alive() {
    let store = store(1 << 20);
    // As a head is read: fields are slices of one large buffer.
    let buffer = Bytes::from(vec![b'v'; 8192]);
    let mut meta = meta("a/");
    for name in ["x-one", "x-two"] {
        let value = http::HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap();
        meta.response_header_mut().append_header(name, value).unwrap();
    }
    let miss = store.get_miss_handler(&key("a/"), &meta, &trace()).await.unwrap();
    miss.finish().await.unwrap();
    drop(meta);
    assert!(buffer.is_unique(), "the stored head holds the buffer");
    let (found, _) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    assert_eq!(found.headers()["x-two"], "vvvvvvvvvv");
    assert_eq!(found.headers()["etag"], "\"1\"");
}

#[tokio::test]
async fn a_hit_copies_no_body() {
    let store = store(1 << 20);
    put(store, "a/", "body").await;
    let mut read = Vec::new();
    for _ in 0..2 {
        let (_, mut hit) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
        read.push(hit.read_body().await.unwrap().unwrap());
    }
    assert_eq!(read[0].as_ptr(), read[1].as_ptr());
}

#[tokio::test]
async fn a_new_head_keeps_the_body() {
    let store = store(1 << 20);
    put(store, "a/", "body").await;
    let mut fresh = meta("a/");
    fresh.response_header_mut().insert_header("etag", "\"2\"").unwrap();
    assert!(store.update_meta(&key("a/"), &fresh, &trace()).await.unwrap());
    let (found, _) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    assert_eq!(found.headers()["etag"], "\"2\"");
    assert_eq!(get(store, "a/").await.unwrap(), "body");
    assert!(!store.update_meta(&key("b/"), &fresh, &trace()).await.unwrap());
}

proptest! {
    #[test]
    fn any_range_is_cut_from_the_body_or_refused(
        length in 0..50usize, start in 0..60usize, end in proptest::option::of(0..60usize),
    ) {
        let store = store(1 << 20);
        let body: &'static str = "0123456789".repeat(5).leak().get(..length).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answer, mut hit) = runtime.block_on(async {
            put(store, "a/", body).await;
            let (_, mut hit) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
            (hit.seek(start, end), hit)
        });
        let expected = body.get(start..end.unwrap_or(length).min(length));
        prop_assert_eq!(answer.is_ok(), expected.is_some());
        if let Some(expected) = expected {
            let read = runtime.block_on(hit.read_body()).unwrap().unwrap_or_default();
            prop_assert_eq!(&*read, expected.as_bytes());
        }
    }
}
