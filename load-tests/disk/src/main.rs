//! Three ways to keep a cache's objects on disk, measured alike: the crate foyer, a file an object, and
//! segments that are appended to. `disk-choice DIR COUNT BYTES`: writes COUNT objects of BYTES, reads a
//! tenth of them at random, starts anew, and says what each took. Every object carries a digest.
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, RecoverMode,
};
use sha2::{Digest, Sha256};

const HEAD: usize = 64;
const SEGMENT: u64 = 64 << 20;

type Key = [u8; 16];

fn key(number: usize) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&Sha256::digest(number.to_le_bytes())[..16]);
    key
}

fn body(number: usize, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let mut body = vec![0; bytes];
    random.fill(&mut body);
    body
}

/// Key, length, digest, body.
fn record(key: &Key, body: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEAD];
    record[..16].copy_from_slice(key);
    record[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    record[24..56].copy_from_slice(&Sha256::digest(body));
    record.extend_from_slice(body);
    record
}

fn length(head: &[u8]) -> usize {
    u64::from_le_bytes(head[16..24].try_into().unwrap()) as usize
}

fn check(record: &[u8]) -> &[u8] {
    let (head, body) = record.split_at(HEAD);
    assert_eq!(&head[24..56], Sha256::digest(body).as_slice());
    body
}

/// User and system time of the process so far.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn rss() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn on_disk(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|it| {
            let meta = it.metadata().unwrap();
            if meta.is_dir() { on_disk(&it.path()) } else { meta.blocks() * 512 }
        })
        .sum()
}

struct Report {
    name: &'static str,
    count: usize,
    wall: Instant,
    cpu: Duration,
}

impl Report {
    fn start(name: &'static str, count: usize) -> Self {
        Self { name, count, wall: Instant::now(), cpu: cpu() }
    }

    fn end(self, what: &str) {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.count as f64;
        println!(
            "{:9} {what:7} {:8.2} us each, {:8.2} us CPU each, {:6.2} s, RSS {} MiB",
            self.name,
            each(self.wall.elapsed()),
            each(cpu() - self.cpu),
            self.wall.elapsed().as_secs_f64(),
            rss() >> 20
        );
    }
}

fn picks(count: usize) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..count / 10).map(|_| random.usize(..count)).collect()
}

fn path(dir: &Path, key: &Key) -> PathBuf {
    let name: String = key.iter().map(|it| format!("{it:02x}")).collect();
    dir.join(&name[..2]).join(&name)
}

fn files(dir: &Path, count: usize, bytes: usize) {
    for number in 0..=255u8 {
        fs::create_dir_all(dir.join(format!("{number:02x}"))).unwrap();
    }
    let write = Report::start("files", count);
    for number in 0..count {
        let key = key(number);
        let temp = dir.join("temp");
        let mut file = File::options().write(true).create_new(true).open(&temp).unwrap();
        file.write_all(&record(&key, &body(number, bytes))).unwrap();
        fs::rename(temp, path(dir, &key)).unwrap();
    }
    write.end("write");
    let read = Report::start("files", count / 10);
    for number in picks(count) {
        let record = fs::read(path(dir, &key(number))).unwrap();
        assert_eq!(check(&record).len(), bytes);
    }
    read.end("read");
    let start = Report::start("files", count);
    let mut index: HashMap<Key, u64> = HashMap::new();
    for folder in fs::read_dir(dir).unwrap().flatten() {
        for file in fs::read_dir(folder.path()).unwrap().flatten() {
            let mut head = [0; HEAD];
            File::open(file.path()).unwrap().read_exact(&mut head).unwrap();
            index.insert(head[..16].try_into().unwrap(), length(&head) as u64);
        }
    }
    assert_eq!(index.len(), count);
    start.end("restart");
    println!("files     on disk {} MiB", on_disk(dir) >> 20);
    let purge = Report::start("files", count);
    for key in index.keys() {
        fs::remove_file(path(dir, key)).unwrap();
    }
    purge.end("purge");
}

fn segments(dir: &Path, count: usize, bytes: usize) {
    fs::create_dir_all(dir).unwrap();
    let (mut all, mut offset) = (Vec::new(), SEGMENT);
    let mut index: HashMap<Key, (usize, u64, usize)> = HashMap::new();
    let write = Report::start("segments", count);
    for number in 0..count {
        if offset >= SEGMENT {
            let path = dir.join(format!("{:06}", all.len()));
            let options = File::options().read(true).write(true).create_new(true).open(path);
            all.push(options.unwrap());
            offset = 0;
        }
        let key = key(number);
        let record = record(&key, &body(number, bytes));
        all.last().unwrap().write_all_at(&record, offset).unwrap();
        index.insert(key, (all.len() - 1, offset, record.len()));
        offset += record.len() as u64;
    }
    write.end("write");
    let read = Report::start("segments", count / 10);
    for number in picks(count) {
        let (segment, offset, length) = index[&key(number)];
        let mut record = vec![0; length];
        all[segment].read_exact_at(&mut record, offset).unwrap();
        assert_eq!(check(&record).len(), bytes);
    }
    read.end("read");
    drop((index, all));
    let start = Report::start("segments", count);
    let mut index: HashMap<Key, (usize, u64, usize)> = HashMap::new();
    for (number, entry) in fs::read_dir(dir).unwrap().flatten().enumerate() {
        let file = File::open(entry.path()).unwrap();
        let (mut offset, mut head) = (0, [0; HEAD]);
        while file.read_exact_at(&mut head, offset).is_ok() {
            let length = HEAD + length(&head);
            index.insert(head[..16].try_into().unwrap(), (number, offset, length));
            offset += length as u64;
        }
    }
    assert_eq!(index.len(), count);
    start.end("restart");
    println!("segments  on disk {} MiB", on_disk(dir) >> 20);
}

async fn open(dir: &Path, capacity: usize) -> anyhow::Result<HybridCache<u128, Vec<u8>>> {
    let device = FsDeviceBuilder::new(dir).with_capacity(capacity).build()?;
    let engine = BlockEngineConfig::new(device)
        .with_block_size(SEGMENT as usize)
        .with_buffer_pool_size(256 << 20);
    let builder = HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(1 << 20)
        .with_weighter(|_: &u128, value: &Vec<u8>| 16 + value.len())
        .storage()
        .with_engine_config(engine)
        .with_recover_mode(RecoverMode::Quiet);
    Ok(builder.build().await.map_err(|why| anyhow::anyhow!("{why}"))?)
}

async fn foyer(dir: &Path, count: usize, bytes: usize) -> anyhow::Result<()> {
    let capacity = (count * (bytes + 4096) * 2).next_multiple_of(SEGMENT as usize).max(16 * SEGMENT as usize);
    let cache = open(dir, capacity).await?;
    let write = Report::start("foyer", count);
    for number in 0..count {
        cache.insert(u128::from_le_bytes(key(number)), body(number, bytes));
        if number % 4096 == 0 {
            // It drops what its flushers cannot follow with.
            cache.storage().wait().await;
        }
    }
    cache.storage().wait().await;
    write.end("write");
    let (read, mut found) = (Report::start("foyer", count / 10), 0);
    for number in picks(count) {
        found += usize::from(cache.get(&u128::from_le_bytes(key(number))).await.ok().flatten().is_some());
    }
    read.end("read");
    println!("foyer     found {found} of {}", count / 10);
    cache.close().await.map_err(|why| anyhow::anyhow!("{why}"))?;
    drop(cache);
    let start = Report::start("foyer", count);
    let cache = open(dir, capacity).await?;
    start.end("restart");
    let mut found = 0;
    for number in picks(count) {
        found += usize::from(cache.get(&u128::from_le_bytes(key(number))).await.ok().flatten().is_some());
    }
    println!("foyer     found {found} of {} after it", count / 10);
    println!("foyer     on disk {} MiB of {} MiB", on_disk(dir) >> 20, capacity >> 20);
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, dir, count, bytes] = arguments.as_slice() else {
        anyhow::bail!("usage: disk-choice files|segments|foyer DIR COUNT BYTES");
    };
    let (dir, count, bytes) = (Path::new(dir).join(way), count.parse()?, bytes.parse()?);
    match way.as_str() {
        "files" => files(&dir, count, bytes),
        "segments" => segments(&dir, count, bytes),
        "foyer" => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(foyer(&dir, count, bytes))?;
        }
        other => anyhow::bail!("`{other}` is none of files, segments, foyer"),
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}
