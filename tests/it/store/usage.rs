//! What models used, in the store by itself: cases that run on both backends.
use std::sync::Arc;

use tollgate::store::{
    Store,
    ledger::{Batch, Call, Used},
    report::{By, Group, Wanted},
};

const DAY: i64 = 86_400;
/// 2026-11-25T12:00:00Z.
const NOON: i64 = 1_795_608_000;

fn call(day: i64, consumer: &str, model: &str, input: i64) -> Call {
    Call {
        time: (NOON + day * DAY) * 1000,
        request_id: format!("id ' \" {consumer}"),
        consumer: consumer.into(),
        model: model.into(),
        status: 200,
        attempts: 1,
        input,
        cost: (model != "free").then_some(input * 1000),
        is_estimated: model == "free",
        first_token_ms: None,
        duration_ms: 5,
        ..Call::default()
    }
}

fn used(consumer: &str, amount: i64) -> Used {
    let start = NOON - NOON % DAY;
    let (unit, period) = ("tokens".to_owned(), "day".to_owned());
    Used { consumer: consumer.into(), unit, period, start, end: start + DAY, amount }
}

fn wanted(limit: usize) -> Wanted {
    let day = NOON / DAY;
    Wanted { from: day - 40, to: day, limit, ..Wanted::default() }
}

const EACH: By = By { day: true, consumer: true, model: true };

async fn total(store: &Store) -> (i64, i64) {
    let by = By { day: false, consumer: false, model: false };
    let page = store.sums(&wanted(10), by, None).await.unwrap();
    page.items.first().map_or((0, 0), |it| (it.calls, it.input))
}

/// Of one node, and what another sees of it.
pub async fn what_was_used_counts_once(store: &Store, other: &Store) {
    let calls: Vec<Call> = (0..120).map(|it| call(0, "acme", "fast", it % 2)).collect();
    let mut batch = Batch { node: "a".to_owned(), number: 1, calls, used: vec![used("acme", 60)] };
    store.write_batch(&batch, NOON).await.unwrap();
    // Its answer was lost, and it comes again.
    store.write_batch(&batch, NOON).await.unwrap();
    assert_eq!(total(other).await, (120, 60));
    assert_eq!(other.new_counts(NOON).await.unwrap(), [used("acme", 60)]);
    assert_eq!(other.new_counts(NOON).await.unwrap(), [], "nothing new");
    batch.number = 2;
    batch.calls.truncate(1);
    store.write_batch(&batch, NOON).await.unwrap();
    let of_another =
        Batch { node: "b".to_owned(), number: 1, used: vec![used("acme", 7)], ..Batch::default() };
    other.write_batch(&of_another, NOON).await.unwrap();
    // Together, in each node.
    for node in [store, other] {
        assert_eq!(node.new_counts(NOON).await.unwrap(), [used("acme", 127)]);
    }
    assert_eq!(total(store).await.0, 121);
    // A row each, whole, newest first, no number twice.
    let page = store.calls(&wanted(200), None).await.unwrap();
    let ids: Vec<i64> = page.items.iter().map(|(id, _)| *id).collect();
    assert!(ids.is_sorted_by(|one, next| one > next) && ids.len() == 121, "{ids:?}");
    assert_eq!(page.items[120].1, call(0, "acme", "fast", 0));
    let first = store.calls(&wanted(100), None).await.unwrap();
    assert!(first.has_more);
    let rest = store.calls(&wanted(100), first.items.last().map(|it| it.0)).await.unwrap();
    assert_eq!((rest.items.len(), rest.has_more), (21, false));
}

pub async fn sums_are_kept_apart_as_asked(store: &Store) {
    let calls = vec![
        call(-1, "acme", "fast", 1),
        call(-1, "acme", "free", 2),
        call(-2, "acme", "fast", 4),
        call(-1, "zoë, inc", "fast", 8),
        call(-1, "", "fast", 16),
    ];
    let batch = Batch { node: "sums".to_owned(), number: 1, calls, used: Vec::new() };
    store.write_batch(&batch, NOON).await.unwrap();
    let day = NOON / DAY;
    let wanted = |limit| Wanted { from: day - 2, to: day - 1, limit, ..Wanted::default() };
    let check = async |by: By, expected: &[(i64, &str, &str, i64)]| {
        let (mut found, mut after) = (Vec::new(), None::<Group>);
        loop {
            let page = store.sums(&wanted(2), by, after.as_ref()).await.unwrap();
            found.extend(page.items.iter().map(|it| (it.group.clone(), it.input)));
            after = page.items.last().map(|it| it.group.clone());
            if !page.has_more {
                break;
            }
        }
        let mut found: Vec<_> =
            found.iter().map(|(it, input)| (it.day, &*it.consumer, &*it.model, *input)).collect();
        // Databases order text by rules of their own.
        found.sort_unstable();
        assert_eq!(found, expected, "{by:?}");
    };
    check(
        EACH,
        &[
            (day - 2, "acme", "fast", 4),
            (day - 1, "", "fast", 16),
            (day - 1, "acme", "fast", 1),
            (day - 1, "acme", "free", 2),
            (day - 1, "zoë, inc", "fast", 8),
        ],
    )
    .await;
    let by = By { day: false, ..EACH };
    check(
        by,
        &[
            (0, "", "fast", 16),
            (0, "acme", "fast", 5),
            (0, "acme", "free", 2),
            (0, "zoë, inc", "fast", 8),
        ],
    )
    .await;
    check(By { consumer: false, ..by }, &[(0, "", "fast", 29), (0, "", "free", 2)]).await;
    check(By { consumer: false, model: false, ..by }, &[(0, "", "", 31)]).await;
    let of_one = Wanted { consumer: "acme".to_owned(), model: "free".to_owned(), ..wanted(10) };
    let page = store.sums(&of_one, EACH, None).await.unwrap();
    let sums: Vec<_> = page.items.iter().map(|it| (it.input, it.cost, it.estimated)).collect();
    assert_eq!(sums, [(2, 0, 1)]);
}

pub async fn old_calls_are_forgotten(store: &Store) {
    let old = Batch {
        node: "old".to_owned(),
        number: 1,
        calls: vec![call(-30, "acme", "fast", 1)],
        used: Vec::new(),
    };
    store.write_batch(&old, NOON).await.unwrap();
    let count = async || store.calls(&wanted(1000), None).await.unwrap().items.len();
    let before = count().await;
    store.prune_calls((NOON - 29 * DAY) * 1000, NOON).await.unwrap();
    assert_eq!(count().await, before - 1);
    let sums = store.sums(&wanted(1000), EACH, None).await.unwrap();
    assert!(sums.items.iter().any(|it| it.group.day == NOON / DAY - 30), "sums stay");
    store.prune_calls(i64::MAX, NOON + 900 * DAY).await.unwrap();
    assert_eq!((count().await, total(store).await), (0, (0, 0)));
}

/// Each writes its own, at once, and all of it is there.
pub async fn nodes_that_write_at_once_lose_nothing(nodes: &[Arc<Store>]) {
    let writes: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| {
            let node = node.clone();
            tokio::spawn(async move {
                for number in 1..=10 {
                    let calls = vec![call(0, "acme", "fast", 1); 3];
                    let (name, used) = (format!("n{n}"), vec![used("acme", 5)]);
                    let batch = Batch { node: name, number, calls, used };
                    node.write_batch(&batch, NOON).await.unwrap();
                }
            })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    let written = i64::try_from(nodes.len()).unwrap() * 10;
    assert_eq!(total(&nodes[0]).await, (3 * written, 3 * written));
    for node in nodes {
        let counts = node.new_counts(NOON).await.unwrap();
        assert_eq!(counts, [used("acme", 5 * written)]);
    }
}
