//! Hours of a provider's life in moments: the clock is tokio's, which stands still but for the waiting.
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    super::{KeySet, algorithm::Algorithm, tests::keys},
    *,
};

const START: u64 = 1_750_000_000;
const GOOD: &[u8] = include_bytes!("../../../../tests/tokens/jwks.json");

/// A provider that is told what to say.
struct Provider {
    live: Arc<Live>,
    says: Mutex<Result<Vec<u8>, String>>,
    asked: AtomicUsize,
    takes: Duration,
    began: Instant,
}

impl Provider {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            live: Arc::new(Live::new(Source::Discovery("https://id.test".into()))),
            says: Mutex::new(Ok(GOOD.to_vec())),
            asked: AtomicUsize::new(0),
            takes: Duration::from_millis(20),
            began: Instant::now(),
        })
    }

    fn says(&self, text: &str) {
        *self.says.lock() = Ok(text.as_bytes().to_vec());
    }

    fn is_down(&self) {
        *self.says.lock() = Err("connection refused".to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn now(&self) -> Now {
        let monotonic = self.began.elapsed();
        Now { monotonic, unix: Duration::from_secs(START) + monotonic }
    }

    /// Begins to keep the keys fresh, for 10 minutes each.
    fn start(self: &Arc<Self>, folder: Option<PathBuf>) -> tokio::task::JoinHandle<()> {
        let provider = self.clone();
        tokio::spawn(async move {
            let fetch = || async {
                provider.asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(provider.takes).await;
                let text = provider.says.lock().clone()?;
                Ok(Fetched { text, lifetime: Duration::from_secs(600) })
            };
            run(&provider.live, folder.as_deref(), fetch, || provider.now()).await;
        })
    }

    /// The keys as an authenticator with this `stale` sees them now.
    fn keys(&self, stale: Duration) -> usize {
        let set = KeySet::remote(self.live.clone(), stale);
        set.current(self.now().unix.as_secs()).map_or(0, |it| it.len())
    }

    /// A request that lacks a key; whether it has it in the end.
    async fn lacks(&self, id: &str) -> bool {
        let has = || self.live.keys().candidates(Some(id), Algorithm::RS256).next().is_some();
        self.live.look(self.now().monotonic, |has| !*has, has).await
    }
}

/// The good set, its RSA key under another name.
fn renamed(id: &str) -> String {
    String::from_utf8_lossy(GOOD).replace("\"rsa\"", &format!("\"{id}\""))
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const DAY: Duration = minutes(24 * 60);

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_at_once_and_again_before_they_expire() {
    let provider = Provider::new();
    let _task = provider.start(None);
    pass(Duration::from_secs(1)).await;
    assert_eq!((provider.asked(), provider.keys(DAY)), (1, 4));
    pass(minutes(9)).await;
    assert_eq!(provider.asked(), 2, "within 75 to 90 percent of 10 minutes");
    pass(minutes(60)).await;
    assert!((8..=10).contains(&provider.asked()), "{}", provider.asked());
}

/// An hour without the provider, asked each second: the keys are there each time.
#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_is_not_noticed() {
    let provider = Provider::new();
    let _task = provider.start(None);
    pass(Duration::from_secs(1)).await;
    provider.is_down();
    for second in 0..3600 {
        assert_eq!(provider.keys(DAY), 4, "after {second} s");
        pass(Duration::from_secs(1)).await;
    }
    let status = provider.live.status();
    assert_eq!(status.last_error.as_deref(), Some("connection refused"));
    assert!((50..=80).contains(&status.errors), "{} tries", status.errors);
    // Back again, it is asked within a minute, and all is as before.
    *provider.says.lock() = Ok(GOOD.to_vec());
    pass(minutes(1)).await;
    let status = provider.live.status();
    assert_eq!((status.last_error, status.keys), (None, 4));
    assert!(provider.now().unix.as_secs() - status.fetched.unwrap() <= 60);
}

#[tokio::test(start_paused = true)]
async fn an_outage_beyond_the_bound_ends_the_keys() {
    let provider = Provider::new();
    let _task = provider.start(None);
    pass(Duration::from_secs(1)).await;
    provider.is_down();
    pass(minutes(59)).await;
    assert_eq!(provider.keys(minutes(60)), 4);
    pass(minutes(2)).await;
    assert_eq!(provider.keys(minutes(60)), 0);
    assert_eq!(provider.keys(DAY), 4, "each authenticator has its own bound");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_good_set_leaves_the_last_good_one() {
    let provider = Provider::new();
    let _task = provider.start(None);
    pass(Duration::from_secs(1)).await;
    let weak = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    for (text, part) in [
        ("", "not a JWK set"),
        ("<html>Service Unavailable</html>", "not a JWK set"),
        ("{\"keys\":[]}", "empty"),
        ("{}", "no list"),
        (weak, "without a key"),
        (&String::from_utf8_lossy(GOOD)[..200], "not a JWK set"),
    ] {
        let before = provider.live.status().errors;
        provider.says(text);
        pass(minutes(10)).await;
        let status = provider.live.status();
        assert!(status.errors > before, "{text}");
        assert!(status.last_error.unwrap().contains(part), "{text}");
        assert_eq!(provider.keys(DAY), 4, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_there_for_the_first_who_asks_for_it() {
    let provider = Provider::new();
    let _task = provider.start(None);
    pass(Duration::from_secs(1)).await;
    provider.says(&renamed("new"));
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.lacks("new").await })
        })
        .collect();
    for asked in asking {
        assert!(asked.await.unwrap());
    }
    assert_eq!(provider.asked(), 2, "one fetch for all of them");
    assert!(!provider.lacks("rsa").await, "what the set no longer has is gone");
}

#[tokio::test(start_paused = true)]
async fn invented_keys_cause_one_fetch_an_interval() {
    let provider = Provider::new();
    let _task = provider.start(None);
    pass(Duration::from_secs(1)).await;
    let began = provider.began.elapsed();
    for number in 0..10_000 {
        assert!(!provider.lacks(&format!("invented{number}")).await);
        pass(Duration::from_millis(5)).await;
    }
    let intervals = (provider.began.elapsed() - began).as_secs() / super::super::INTERVAL.as_secs();
    let fetches = provider.asked() as u64 - 1;
    assert!((intervals..=intervals + 1).contains(&fetches), "{fetches} in {intervals} intervals");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_and_not_all_wait() {
    let mut provider = Provider::new();
    Arc::get_mut(&mut provider).unwrap().takes = Duration::from_secs(5);
    let _task = provider.start(None);
    pass(Duration::from_millis(1)).await;
    let began = Instant::now();
    assert!(!provider.lacks("new").await);
    assert_eq!(began.elapsed().as_secs(), 3, "as long as patience lasts");
    // 512 wait, and the next one is told at once.
    let until = Instant::now() + minutes(1);
    let want = || provider.live.want(provider.now().monotonic, provider.live.ended(), until);
    let waiting: Vec<_> = std::iter::from_fn(want).collect();
    assert_eq!(waiting.len(), 512);
    drop(waiting);
    assert!(want().is_some());
}

/// A fetch ends between a look at the keys and the wish for another: the wish is granted already.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_ends_in_between_is_not_missed() {
    let provider = Provider::new();
    let _task = provider.start(None);
    let seen = provider.live.ended();
    pass(Duration::from_secs(1)).await;
    let mut patience =
        provider.live.want(provider.now().monotonic, seen, Instant::now() + minutes(1)).unwrap();
    assert!(patience.next().await, "look again");
    assert!(!patience.next().await, "and there is nothing more to come");
    assert_eq!(provider.asked(), 1);
}

/// A key that was published after the answer under way was made is found by the next one.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_too_early_is_followed_by_another() {
    let mut provider = Provider::new();
    Arc::get_mut(&mut provider).unwrap().takes = Duration::from_secs(1);
    let _task = provider.start(None);
    pass(Duration::from_millis(500)).await;
    let lacking = {
        let provider = provider.clone();
        tokio::spawn(async move { provider.lacks("new").await })
    };
    pass(Duration::from_millis(600)).await;
    provider.says(&renamed("new"));
    assert!(lacking.await.unwrap());
    assert_eq!(provider.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_snapshot_goes_on_where_the_last_one_was() {
    let provider = Provider::new();
    let first = provider.start(None);
    pass(Duration::from_secs(1)).await;
    let second = provider.start(None);
    pass(Duration::from_secs(1)).await;
    first.abort();
    pass(minutes(1)).await;
    assert_eq!(provider.asked(), 1, "a reload fetches nothing");
    pass(minutes(9)).await;
    assert_eq!(provider.asked(), 2, "and yet somebody keeps it fresh");
    drop(second);
}

#[tokio::test]
async fn the_last_good_set_is_kept_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::new();
    let _task = provider.start(Some(folder.path().to_owned()));
    let source = provider.live.source();
    let end = Instant::now() + Duration::from_secs(20);
    while kept::read(folder.path(), source).is_none() {
        assert!(Instant::now() < end, "never kept");
        pass(Duration::from_millis(1)).await;
    }
    let kept = kept::read(folder.path(), source).unwrap();
    assert_eq!(keys(kept.text.as_bytes()).len(), 4);
    assert_eq!(kept.fetched, START);
}

#[test]
fn freshness_is_what_the_answer_says() {
    let check = |lines: &[(&str, &str)], expected: Option<u64>| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(lifetime(&headers), expected.map(Duration::from_secs), "{lines:?}");
    };
    check(&[], None);
    check(&[("cache-control", "max-age=300")], Some(300));
    check(&[("cache-control", "public, Max-Age=\"300\", must-revalidate")], Some(300));
    check(&[("cache-control", "max-age=300"), ("age", "100")], Some(200));
    check(&[("cache-control", "max-age=300"), ("age", "400")], Some(0));
    check(&[("cache-control", "max-age=300"), ("cache-control", "max-age=60")], Some(60));
    check(&[("cache-control", "no-store")], Some(0));
    check(&[("cache-control", "max-age=-1")], None);
    check(&[("cache-control", "max-age=99999999999999999999")], None);
    check(&[("cache-control", "s-maxage=5")], None);
}
