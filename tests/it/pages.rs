//! Runs the pages of the documentation that hold an example: each is a folder of files and one shell
//! script, and each of its lines of curl says which status comes back.
//!
//! A block that begins with `# NAME` (or `// NAME`) is a file; `gateway.yaml` must be among them. The
//! blocks of shell run in their order as one script, so what they set stays set. The gateway starts
//! where the page says `tollgate run -c gateway.yaml`, else before the first block with curl.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{HANG, Upstream, free_address, reply, skip, wait_until};

const UPSTREAM: u16 = 9000;
const ADMIN: u16 = 9900;
/// Those of the gateway, of the upstream, and of servers that a page starts itself.
const PORTS: [std::ops::RangeInclusive<u16>; 4] =
    [8080..=8080, 8443..=8443, ADMIN..=ADMIN, UPSTREAM..=9099];

/// What all pages begin with. `page_curl LINE STATUS …` runs curl and compares; the status `fails` is
/// for a connection that curl does not get, such as one without the certificate that is asked for.
const PRELUDE: &str = r#"
set -Eeuo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND: failed" >&2' ERR
page_start() {
    tollgate run -c gateway.yaml >gateway.out 2>&1 &
    for _ in {1..400}; do
        if [ "$(curl -s -m 5 -o page.out -w '%{http_code}' "http://$TOLLGATE_ADMIN/readyz" || :)" = 200 ]; then
            return
        fi
        kill -0 $! 2>/dev/null || break
        sleep 0.05
    done
    echo "the gateway does not start:" >&2
    exit 1
}
page_curl() {
    local line=$1 wanted=$2 got
    shift 2
    got=$(curl -sS -m 20 "$@" -o page.out -w '%{http_code}' 2>page.err) || got=fails
    if [ "$got" != "$wanted" ]; then
        echo "line $line: $got instead of $wanted: curl $*" >&2
        cat page.err page.out >&2 || :
        exit 1
    fi
}
"#;

#[derive(Debug, PartialEq, Eq)]
struct Page {
    /// By name.
    files: BTreeMap<String, String>,
    /// As many lines as the page has, so that the shell's line numbers are the page's.
    script: String,
    /// How many lines of curl say what they expect.
    expectations: usize,
}

struct Block<'a> {
    word: &'a str,
    /// Of the line behind the fence, counted from 0.
    start: usize,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_open = false;
    for (number, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(word) if !is_open => {
                blocks.push(Block { word: word.trim(), start: number + 1, lines: Vec::new() });
            }
            Some(_) => {}
            None if is_open => blocks.last_mut().unwrap().lines.push(line),
            None => continue,
        }
        is_open ^= line.starts_with("```");
    }
    blocks
}

/// The name of the file that a block is, if it is one.
fn file_name<'a>(block: &Block<'a>) -> Option<&'a str> {
    let first = block.lines.first()?;
    let name = first.strip_prefix("# ").or_else(|| first.strip_prefix("// "))?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (name.contains('.') && name.chars().all(is_name)).then_some(name)
}

impl Page {
    fn parse(text: &str) -> Result<Self, String> {
        const START: &str = "tollgate run -c gateway.yaml";
        let blocks = blocks(text);
        let mut script = vec![String::new(); text.lines().count()];
        let mut page = Self { files: BTreeMap::new(), script: String::new(), expectations: 0 };
        let mut is_started =
            blocks.iter().any(|it| it.lines.iter().any(|it| it.starts_with(START)));
        for block in &blocks {
            if let Some(name) = file_name(block) {
                // JSON has no comments.
                let from = usize::from(name.ends_with(".json"));
                let text = block.lines.get(from..).unwrap_or_default().join("\n") + "\n";
                if page.files.insert(name.to_owned(), text).is_some() {
                    return Err(format!("{name} is there twice"));
                }
            } else if block.word == "sh" {
                for (offset, line) in block.lines.iter().enumerate() {
                    let number = block.start + offset;
                    script[number] = if line.starts_with(START) {
                        "page_start".to_owned()
                    } else if let Some(rest) = line.strip_prefix("curl ") {
                        page.expectations += 1;
                        if !is_started {
                            is_started = true;
                            script[block.start - 1] = "page_start".to_owned();
                        }
                        expecting(number + 1, rest)?
                    } else {
                        (*line).to_owned()
                    };
                }
            }
        }
        page.script = script.join("\n") + "\n";
        match page {
            _ if !page.files.contains_key("gateway.yaml") => {
                Err("no block begins with `# gateway.yaml`".to_owned())
            }
            _ if page.expectations == 0 => Err("no line of curl says what comes back".to_owned()),
            page => Ok(page),
        }
    }
}

/// `curl …   # 200` and `# 200 with words`, as a call of `page_curl`.
fn expecting(number: usize, rest: &str) -> Result<String, String> {
    let expected = rest.rsplit_once(" # ").and_then(|(arguments, comment)| {
        let status = comment.split_whitespace().next()?;
        let is_status = status.len() == 3 && status.bytes().all(|it| it.is_ascii_digit());
        (is_status || status == "fails").then_some((arguments.trim_end(), status))
    });
    let (arguments, status) =
        expected.ok_or_else(|| format!("line {number} does not end in a status, as `# 200`"))?;
    Ok(format!("page_curl {number} {status} {arguments}"))
}

/// The same text with each of the ports in [`PORTS`] replaced by `free` of it.
fn with_ports(text: &str, mut free: impl FnMut(u16) -> u16) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        out += before;
        match word.parse() {
            Ok(port) if PORTS.iter().any(|it| it.contains(&port)) => out += &free(port).to_string(),
            _ => out += word,
        }
        rest = after;
    }
    out + rest
}

/// A shell with all that it started.
struct Shell(Child);

impl Shell {
    fn wait(&mut self) -> Result<ExitStatus, String> {
        // A page takes as long as its own waits: a token that has to expire, a key of 2048 bits.
        let end = Instant::now() + HANG * 4;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("it does not end".to_owned())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The whole group. Not every `sh` knows `--`.
        let line = format!("kill -KILL -- -{}", self.0.id());
        let _ = Command::new("bash").args(["-c", &line]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// Runs a page to its end in a folder of its own.
fn run(text: &str) -> Result<(), String> {
    let mut ports = BTreeMap::new();
    let text = with_ports(text, |it| *ports.entry(it).or_insert_with(|| free_address().port()));
    let page = Page::parse(&text)?;
    let mut port = |it| *ports.entry(it).or_insert_with(|| free_address().port());
    let upstream = ([127, 0, 0, 1], port(UPSTREAM)).into();
    let _upstream = Upstream::start_at(upstream, |request| reply(200, request.raw.clone()));

    let folder = tempfile::tempdir().unwrap();
    for (name, text) in &page.files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let own = tempfile::tempdir().unwrap();
    let path = |name| own.path().join(name);
    fs::write(path("prelude"), PRELUDE).unwrap();
    fs::write(path("page"), &page.script).unwrap();
    let tollgate = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap();
    let shell = Command::new("bash")
        .args(["-c", ". \"$0\" && . \"$1\""])
        .args([path("prelude"), path("page")])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{}", tollgate.display(), std::env::var("PATH").unwrap()))
        .env("TOLLGATE_ADMIN", format!("127.0.0.1:{}", port(ADMIN)))
        .stdin(Stdio::null())
        .stdout(File::create(path("stdout")).unwrap())
        .stderr(File::create(path("stderr")).unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let ended = Shell(shell).wait();
    let admin = SocketAddr::from(([127, 0, 0, 1], port(ADMIN)));
    wait_until("all that the page started has ended", || TcpStream::connect(admin).is_err());
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    match ended {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!(
            "{other:?}\n{}{}\nthe gateway said:\n{}",
            read(path("stdout")),
            read(path("stderr")),
            read(folder.path().join("gateway.out")),
        )),
    }
}

/// The programs that a page needs and that are not here.
fn missing(text: &str) -> Vec<&'static str> {
    let sh = blocks(text).into_iter().filter(|it| it.word == "sh").flat_map(|it| it.lines);
    let words: Vec<&str> = sh.flat_map(|it| it.split([' ', '(', '|', ';'])).collect();
    let is_here = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|it| it.join(program).is_file())
    };
    let optional = ["openssl", "node", "npm", "python3", "jq", "psql", "xxd"];
    let needed = ["bash", "curl"].into_iter();
    let needed = needed.chain(optional.into_iter().filter(|it| words.contains(it)));
    needed.filter(|it| !is_here(it)).collect()
}

/// Pages that must hold an example, besides all of `docs/authentication`: one line each. Others may: see
/// [`pages`].
const MUST_RUN: &[&str] = &[
    "docs/bodies.md",
    "docs/cache.md",
    "docs/grpc.md",
    "docs/mirror.md",
    "docs/transformation.md",
];

fn at(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn pages_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(at(folder)).unwrap().map(|it| it.unwrap().path());
    let mut pages: Vec<_> =
        entries.filter(|it| it.extension().is_some_and(|it| it == "md")).collect();
    pages.sort();
    pages
}

/// Those that must run, and of the others those that have a configuration to run.
fn pages() -> Vec<PathBuf> {
    let mut pages = pages_in("docs/authentication");
    pages.extend(MUST_RUN.iter().map(|it| at(it)));
    for page in pages_in("docs").into_iter().chain([at("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let has_one = blocks(&text).iter().any(|it| file_name(it) == Some("gateway.yaml"));
        if has_one && !pages.contains(&page) {
            pages.push(page);
        }
    }
    pages
}

#[test]
fn every_page_does_what_it_says() {
    let run_one = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let missing = missing(&text);
        if missing.is_empty() {
            return run(&text).map_err(|why| format!("{}: {why}", path.display()));
        }
        skip(&format!("{}: {} is not installed", path.display(), missing.join(", ")));
        Ok(())
    };
    let mut failed = Vec::new();
    // Two at a time: pages start servers of their own.
    for pair in pages().chunks(2) {
        thread::scope(|scope| {
            let running: Vec<_> = pair.iter().map(|it| scope.spawn(|| run_one(it))).collect();
            failed.extend(running.into_iter().filter_map(|it| it.join().unwrap().err()));
        });
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn the_index_names_every_page() {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/authentication.md");
    let index = fs::read_to_string(index).unwrap();
    let pages = pages_in("docs/authentication");
    assert!(pages.len() >= 2, "{pages:?}");
    for page in pages {
        let link = format!("(authentication/{})", page.file_name().unwrap().to_str().unwrap());
        assert!(index.contains(&link), "docs/authentication.md has no {link}");
    }
}

#[track_caller]
fn check(text: &str, expected: Result<(&str, usize), &str>) {
    let page = Page::parse(text);
    let page = page.as_ref().map(|it| (it.script.as_str(), it.expectations));
    assert_eq!(page, expected.map_err(str::to_owned).as_ref().copied());
}

#[test]
fn a_page_is_files_and_one_script() {
    let yaml = "```yaml\n# gateway.yaml\nversion: 1\n```\n";
    check(
        &format!("{yaml}```sh\na=1\n```\ntext\n```sh\ncurl -i $a   # 200 fine\nb\n```\n"),
        Ok(("\n\n\n\n\na=1\n\n\npage_start\npage_curl 10 200 -i $a\nb\n\n", 1)),
    );
    check(
        &format!("{yaml}```sh\ntollgate run -c gateway.yaml &\ncurl a # fails\n```\n"),
        Ok(("\n\n\n\n\npage_start\npage_curl 7 fails a\n\n", 1)),
    );
    check(
        &format!("{yaml}```sh\ncurl a\n```\n"),
        Err("line 6 does not end in a status, as `# 200`"),
    );
    check(yaml, Err("no line of curl says what comes back"));
    check("```sh\ncurl a # 200\n```\n", Err("no block begins with `# gateway.yaml`"));
    check(&yaml.repeat(2), Err("gateway.yaml is there twice"));
}

#[test]
fn a_page_that_is_not_true_fails() {
    const YAML: &str = "```yaml\n# gateway.yaml\nversion: 1\n\
        listeners: [{name: http, address: '127.0.0.1:8080'}]\nadmin: {address: '127.0.0.1:9900'}\n\
        upstreams: {up: {endpoints: [{url: 'http://127.0.0.1:9000'}]}}\n\
        routes: [{id: all, match: {paths: [/a]}, public: true, upstream: up}]\n```\n";
    let run = |sh: &str| run(&format!("{YAML}```sh\n{sh}\n```\n"));
    if !missing("").is_empty() {
        skip("bash or curl is not installed");
        return;
    }
    assert_eq!(run("curl http://127.0.0.1:8080/a # 200\ncurl http://127.0.0.1:1/ # fails"), Ok(()));
    for (sh, why) in [
        ("curl http://127.0.0.1:8080/b # 200", "line 10: 404 instead of 200"),
        ("curl http://127.0.0.1:8080/a # 401", "line 10: 200 instead of 401"),
        ("curl http://127.0.0.1:8080/a # fails", "line 10: 200 instead of fails"),
        ("false\ncurl http://127.0.0.1:8080/a # 200", "line 10: false: failed"),
    ] {
        let said = run(sh).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn ports_become_free_ones() {
    let text = "a:8080/ 9001 9900 90000 80801 x9000 9100";
    assert_eq!(with_ports(text, |it| it + 1), "a:8081/ 9002 9901 90000 80801 x9000 9100");
}
