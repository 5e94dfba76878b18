use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Instant,
};

use pingora::cache::{HitHandler, Storage};

use super::{
    super::{
        self as storage, Label, Store,
        entry::{Body, Head},
        marks::Marks,
        tests::{get, key, meta, put, trace},
    },
    *,
};

const MEMORY: u64 = 1 << 20;

fn spec(path: &Path) -> Spec {
    Spec { path: path.to_owned(), size: LEAST }
}

fn on(memory: u64, disk: Spec) -> storage::Spec {
    storage::Spec { memory, disk: Some(disk) }
}

fn disk(store: &Store) -> Statistics {
    store.statistics().disk.unwrap()
}

#[track_caller]
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what} never came");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A store with its disk in use.
#[track_caller]
fn open_with(spec: &Spec, memory: u64) -> &'static Store {
    let store: &'static Store = Box::leak(Box::new(Store::new(memory)));
    store.configure(&on(memory, spec.clone()));
    wait("a disk in use", || disk(store).phase == Phase::InUse);
    store
}

fn open(path: &Path) -> &'static Store {
    open_with(&spec(path), MEMORY)
}

fn leave(store: &Store) {
    store.begin_to_leave();
    store.wait_for_disk(Duration::from_secs(20));
    assert_eq!(disk(store).phase, Phase::Closed);
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(path).unwrap().map(|it| it.unwrap().path()).collect();
    found.retain(|it| it.extension().is_some_and(|it| it == "segment"));
    found.sort();
    found
}

async fn written(store: &'static Store, url: &str, body: &'static str) {
    let before = disk(store).entries;
    put(store, url, body).await;
    wait("an entry on disk", || disk(store).entries > before);
}

#[tokio::test]
async fn an_entry_survives_a_restart_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let first = open(&path);
    written(first, "a/", "hello").await;
    let (before, _): (_, HitHandler) = first.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    leave(first);

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&segments(&path)[0])), (0o700, 0o600));

    let second = open(&path);
    assert_eq!((disk(second).entries, second.statistics().entries), (1, 0));
    let (after, mut hit) = second.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    assert_eq!(after.headers(), before.headers());
    assert_eq!(
        (after.fresh_until(), after.created(), after.epoch()),
        (before.fresh_until(), before.created(), before.epoch())
    );
    hit.seek(1, Some(3)).unwrap();
    assert_eq!(hit.read_body().await.unwrap().unwrap(), "el");
    assert_eq!((disk(second).hits, second.statistics().hits), (1, 0));
    assert_eq!(get(second, "a/").await.unwrap(), "hello");
    assert_eq!((disk(second).hits, second.statistics().hits), (1, 1), "it was promoted");
}

#[tokio::test]
async fn what_leaves_memory_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_with(&spec(folder.path()), 100_000);
    let body: &'static str = "x".repeat(900).leak();
    for number in 0..120 {
        put(store, &format!("a/{number}"), body).await;
    }
    // In so small a memory some leave while they still arrive, and those are not written.
    wait("most are on disk", || disk(store).entries >= 90);
    assert!(store.statistics().evicted > 30);
    let mut found = 0;
    for number in 0..120 {
        if let Some(got) = get(store, &format!("a/{number}")).await {
            assert_eq!(got, body, "{number}");
            found += 1;
        }
    }
    assert!(found >= 90, "{found}");
    assert!(disk(store).hits > 30);
    // The index counts: memory and it are within the budget together.
    let index = |store| disk(store).entries as u64 * ENTRY;
    assert!(store.statistics().used + index(store) <= 100_000);
}

#[tokio::test]
async fn a_purged_entry_does_not_come_back() {
    for purge in [
        Purge::Url("a/x".to_owned()),
        Purge::Prefix("a/".to_owned()),
        Purge::Tag("t".to_owned()),
        Purge::Route("r".to_owned()),
        Purge::Everything,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        written(store, "a/x", "old").await;
        leave(store);
        // From disk alone, in this process and the next.
        let store = open(folder.path());
        assert!(store.purge_all(&purge).is_lasting);
        assert_eq!(get(store, "a/x").await, None, "{purge:?}");
        leave(store);
        let store = open(folder.path());
        assert_eq!(get(store, "a/x").await, None, "{purge:?}");
        written(store, "a/x", "new").await;
        leave(store);
        assert_eq!(get(open(folder.path()), "a/x").await.unwrap(), "new", "{purge:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    written(store, "a/x", "kept").await;
    for other in [Purge::Url("a/y".to_owned()), Purge::Tag("a/x".to_owned())] {
        store.purge_all(&other);
    }
    leave(store);
    assert_eq!(get(open(folder.path()), "a/x").await.unwrap(), "kept");
}

#[tokio::test]
async fn an_unsafe_request_lasts_and_costs_nothing_for_what_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    written(store, "a/x", "old").await;
    let used = disk(store).used;
    wait("nothing moves", || store.disk().is_some_and(|it| !it.is_unsure()));
    for number in 0..1000 {
        store.forget(&format!("b/{number}"));
    }
    store.forget("a/x");
    leave(store);
    assert!(disk(store).used < used + 500, "one purge is written: {}", disk(store).used - used);
    assert_eq!(get(open(folder.path()), "a/x").await, None);
}

#[tokio::test]
async fn a_newer_response_is_the_one_that_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    written(store, "a/", "old").await;
    put(store, "a/", "new").await;
    let mut fresh = meta("a/");
    fresh.response_header_mut().insert_header("etag", "\"2\"").unwrap();
    assert!(store.update_meta(&key("a/"), &fresh, &trace()).await.unwrap());
    leave(store);
    let store = open(folder.path());
    let (found, _) = store.lookup(&key("a/"), &trace()).await.unwrap().unwrap();
    assert_eq!(found.headers()["etag"], "\"2\"");
    assert_eq!(get(store, "a/").await.unwrap(), "new");
}

#[tokio::test]
async fn what_is_soon_of_no_use_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    written(store, "a/", "long").await;
    let mut short = meta("a/");
    short.update_freshness(SystemTime::now() + Duration::from_secs(5), 0, 0);
    assert!(store.update_meta(&key("a/"), &short, &trace()).await.unwrap());
    wait("the old one is gone", || disk(store).entries == 0);
    leave(store);
    assert_eq!(get(open(folder.path()), "a/").await, None);
}

/// What is found after `spoil` changed the only segment, of the two entries `a/` and `b/`.
async fn after(spoil: impl Fn(&Path)) -> (Option<String>, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    written(store, "a/", "first").await;
    written(store, "b/", "second").await;
    leave(store);
    spoil(&segments(folder.path())[0]);
    let store = open(folder.path());
    let found = (get(store, "a/").await, get(store, "b/").await);
    // It goes on.
    written(store, "c/", "third").await;
    leave(store);
    let store = open(folder.path());
    assert_eq!(get(store, "c/").await.unwrap(), "third");
    found
}

fn is_right(found: &(Option<String>, Option<String>)) -> bool {
    found.0.as_deref().is_none_or(|it| it == "first")
        && found.1.as_deref().is_none_or(|it| it == "second")
}

#[tokio::test]
async fn a_flipped_bit_is_a_miss() {
    let mut missed = 0;
    for at in (0..600).step_by(17) {
        let found = after(|file| {
            let mut bytes = fs::read(file).unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x40;
            }
            fs::write(file, bytes).unwrap();
        })
        .await;
        assert!(is_right(&found), "{at}: {found:?}");
        missed += usize::from(found.0.is_none() || found.1.is_none());
    }
    assert!(missed > 15, "{missed}");
}

#[tokio::test]
async fn a_file_that_is_cut_loses_its_end() {
    for left in [0, 10, PREFIX_END, 60, 150, 300] {
        let found = after(|file| {
            let length = fs::metadata(file).unwrap().len();
            fs::File::options().write(true).open(file).unwrap().set_len(left.min(length)).unwrap();
        })
        .await;
        assert!(is_right(&found) && found.1.is_none(), "{left}: {found:?}");
    }
    let found = after(|file| {
        let length = fs::metadata(file).unwrap().len();
        fs::File::options().write(true).open(file).unwrap().set_len(length - 1).unwrap();
    })
    .await;
    assert_eq!(found, (Some("first".to_owned()), None));
}

const PREFIX_END: u64 = segment::PREFIX as u64;

#[tokio::test]
async fn what_is_not_ours_is_left_alone_or_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let store = open(&path);
    written(store, "a/", "hello").await;
    leave(store);
    let target = folder.path().join("precious");
    fs::write(&target, "precious").unwrap();
    let named = |number: u32| path.join(format!("{number:016x}.segment"));
    fs::write(named(1), "garbage").unwrap();
    fs::create_dir(named(2)).unwrap();
    symlink(&target, named(3)).unwrap();
    symlink(folder.path().join("nowhere"), named(4)).unwrap();
    let of_another_version = {
        let mut bytes = fs::read(&segments(&path)[4]).unwrap();
        bytes[15] += 1;
        bytes
    };
    fs::write(named(5), of_another_version).unwrap();
    fs::write(path.join("notes.txt"), "not ours").unwrap();
    let store = open(&path);
    assert_eq!(get(store, "a/").await.unwrap(), "hello");
    assert_eq!(disk(store).damaged, 5);
    let left: Vec<_> = (1..=5).filter(|it| fs::symlink_metadata(named(*it)).is_ok()).collect();
    assert_eq!(left, [2], "a folder is for people to remove");
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
    assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "not ours");
}

#[tokio::test]
async fn it_keeps_to_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let size = 4 << 20;
    let store = open_with(&Spec { path: folder.path().to_owned(), size }, 2_000_000);
    let body: &'static str = "x".repeat(900).leak();
    for number in 0..10_000 {
        put(store, &format!("a/{number}"), body).await;
        if number % 200 == 0 {
            let on_disk: u64 = segments(folder.path())
                .iter()
                .filter_map(|it| Some(fs::metadata(it).ok()?.len()))
                .sum();
            assert!(on_disk <= size && disk(store).used <= size, "{on_disk}");
        }
    }
    leave(store);
    assert!(disk(store).evicted > 3000);
    let smaller = Spec { path: folder.path().to_owned(), size: 2 << 20 };
    let store = open_with(&smaller, 2_000_000);
    assert!(disk(store).used <= smaller.size && disk(store).entries > 100);
    store.configure(&on(2_000_000, Spec { size: 1 << 20, ..smaller.clone() }));
    wait("room is made", || disk(store).used <= 1 << 20);
    store.configure(&storage::Spec { memory: 2_000_000, disk: None });
    assert!(store.statistics().disk.is_none());
}

#[tokio::test]
async fn what_is_asked_for_stays_and_the_oldest_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec { path: folder.path().to_owned(), size: 4 << 20 };
    let disk = Disk::open(&spec, usize::MAX, Arc::default()).unwrap();
    wait("a disk in use", || disk.statistics().phase == Phase::InUse);
    let key =
        |number: u64| [number.to_le_bytes(), number.to_le_bytes()].concat().try_into().unwrap();
    let meta = meta("a/");
    let label = meta.extensions().get::<Label>().unwrap().clone();
    let head = Arc::new(Head::new(&meta, label, Marks::default().of("a/")));
    let entry = Arc::new(Entry { head, body: Body::Whole(vec![7; 10_000].into()) });
    for number in 0..2000 {
        disk.put(key(number), disk.moving(), &entry);
        if number % 20 == 0 {
            // In step, so that the queue drops nothing.
            wait("all is written", || !disk.is_unsure());
            let (found, _) = disk.get(&key(0)).await.expect("it was asked for each time");
            assert_eq!(found.body.len(), 10_000);
        }
    }
    wait("all is written", || !disk.is_unsure());
    assert!(disk.get(&key(1)).await.is_none());
    assert!(disk.get(&key(1999)).await.is_some());
    assert_eq!(disk.statistics().dropped, 0);
}

#[tokio::test]
async fn a_second_process_waits_for_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let old = open(folder.path());
    written(old, "a/kept", "kept").await;
    written(old, "a/gone", "gone").await;
    written(old, "b/", "gone").await;
    let new: &'static Store = Box::leak(Box::new(Store::new(MEMORY)));
    new.configure(&on(MEMORY, spec(folder.path())));
    assert_eq!(disk(new).phase, Phase::Waiting);
    put(new, "c/", "memory").await;
    assert_eq!(get(new, "a/kept").await, None);
    assert!(new.purge_all(&Purge::Url("a/gone".to_owned())).is_lasting);
    new.forget("b/");
    // Both go on.
    written(old, "d/", "late").await;
    assert_eq!(get(new, "c/").await.unwrap(), "memory");
    leave(old);
    assert_eq!(get(old, "a/kept").await.unwrap(), "kept", "from memory");
    wait("the folder", || disk(new).phase == Phase::InUse);
    assert_eq!(get(new, "a/kept").await.unwrap(), "kept");
    assert_eq!(get(new, "d/").await.unwrap(), "late");
    assert_eq!((get(new, "a/gone").await, get(new, "b/").await), (None, None));
    leave(new);
    let next = open(folder.path());
    assert_eq!((get(next, "a/gone").await, get(next, "b/").await), (None, None));
    assert_eq!(get(next, "a/kept").await.unwrap(), "kept");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_costs_misses_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let open_to_all = folder.path().join("open");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [open_to_all, file, folder.path().join("no/where")] {
        let store: &'static Store = Box::leak(Box::new(Store::new(MEMORY)));
        store.configure(&on(MEMORY, spec(&path)));
        wait("it is paused", || disk(store).phase == Phase::Paused);
        put(store, "a/", "memory").await;
        assert_eq!(get(store, "a/").await.unwrap(), "memory");
        assert!(!store.purge_all(&Purge::Tag("t".to_owned())).is_lasting);
        assert_eq!(get(store, "a/").await, None);
        assert!(disk(store).write_errors > 0 && disk(store).last_error.is_some());
        leave(store);
    }
}

#[tokio::test]
async fn many_who_ask_for_one_entry_wait_for_one_reading() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    written(store, "a/", "hello").await;
    leave(store);
    let store = open(folder.path());
    let asking = (0..200).map(|_| tokio::spawn(get(store, "a/")));
    for it in asking.collect::<Vec<_>>() {
        assert_eq!(it.await.unwrap().unwrap(), "hello");
    }
    assert_eq!(disk(store).dropped, 0);
}
