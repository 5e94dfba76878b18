use std::{fs, path::Path};

use super::{record::tests::record, *};

const PATIENCE: Duration = Duration::from_secs(10);

fn counter() -> IntCounter {
    IntCounter::new("dropped", "dropped").unwrap()
}

fn log_to(path: &Path) -> (AccessLog, IntCounter) {
    let dropped = counter();
    (AccessLog::new(Destination::Path(path.into()), dropped.clone()).unwrap(), dropped)
}

fn write(log: &AccessLog, ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        log.write(&Record { request_id: &id.to_string(), ..record() });
    }
}

/// The request ids of a log, each line of which must be JSON.
fn ids(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path).unwrap();
    let id = |line: &str| -> u32 {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["request_id"].as_str().unwrap().parse().unwrap()
    };
    text.lines().map(id).collect()
}

#[test]
fn lines_arrive_in_order_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, dropped) = log_to(&path);
    write(&log, 0..1000);
    assert!(log.flush(PATIENCE));
    assert_eq!(ids(&path), (0..1000).collect::<Vec<_>>());
    write(&log, 1000..1500);
    assert!(log.close(PATIENCE));
    assert_eq!(ids(&path).len(), 1500);
    assert_eq!(dropped.get(), 0);
}

#[test]
fn lines_of_many_threads_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, _) = log_to(&path);
    thread::scope(|scope| {
        for start in 0..4 {
            let log = &log;
            scope.spawn(move || write(log, start * 500..(start + 1) * 500));
        }
    });
    assert!(log.close(PATIENCE));
    let mut found = ids(&path);
    found.sort_unstable();
    assert_eq!(found, (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, dropped) = log_to(Path::new("/dev/full"));
    write(&log, 0..100);
    assert!(log.flush(PATIENCE));
    assert_eq!(dropped.get(), 100);
    log.set(Destination::Path(path.clone())).unwrap();
    write(&log, 100..110);
    assert!(log.flush(PATIENCE));
    assert_eq!(dropped.get(), 100);
    assert_eq!(ids(&path), (100..110).collect::<Vec<_>>());
}

#[test]
fn after_a_rename_lines_go_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let (log, _) = log_to(&path);
    write(&log, 0..10);
    assert!(log.flush(PATIENCE));
    fs::rename(&path, &old).unwrap();
    write(&log, 10..20);
    assert!(log.flush(PATIENCE));
    log.reopen().unwrap();
    write(&log, 20..30);
    assert!(log.close(PATIENCE));
    assert_eq!(ids(&old), (0..20).collect::<Vec<_>>());
    assert_eq!(ids(&path), (20..30).collect::<Vec<_>>());
}

#[test]
fn a_destination_that_cannot_be_opened_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, _) = log_to(&path);
    let missing = folder.path().join("missing/access.log");
    assert!(log.set(Destination::Path(missing.clone())).is_err());
    write(&log, 0..5);
    assert!(log.close(PATIENCE));
    assert_eq!(ids(&path).len(), 5);
    assert!(AccessLog::new(Destination::Path(missing), counter()).is_err());
}

#[test]
fn off_writes_nothing_and_drops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, dropped) = log_to(&path);
    write(&log, 0..3);
    assert!(log.flush(PATIENCE));
    log.set(Destination::Off).unwrap();
    assert!(!log.is_on());
    write(&log, 3..6);
    log.set(Destination::Path(path.clone())).unwrap();
    write(&log, 6..9);
    assert!(log.close(PATIENCE));
    assert_eq!(ids(&path), [0, 1, 2, 6, 7, 8]);
    assert_eq!(dropped.get(), 0);
}

#[test]
fn what_comes_after_the_close_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (log, dropped) = log_to(&path);
    assert!(log.close(PATIENCE));
    write(&log, 0..2);
    assert!(log.close(PATIENCE), "closing twice does not wait");
    assert_eq!((ids(&path).len(), dropped.get()), (0, 2));
}

fn check_destination(text: &str, expected: &Destination) {
    assert_eq!(&Destination::parse(text), expected);
}

#[test]
fn words_are_destinations_and_the_rest_are_paths() {
    check_destination("stdout", &Destination::Stdout);
    check_destination("stderr", &Destination::Stderr);
    check_destination("off", &Destination::Off);
    check_destination("/var/log/a.log", &Destination::Path("/var/log/a.log".into()));
}
