//! `process_*` from /proc (proc(5)). The crate's own reader needs the `procfs` package; this one
//! also still answers when the process has run out of file descriptors.
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::proto::MetricType;

use super::family::Family;

/// Clock ticks a second in /proc. sysconf(_SC_CLK_TCK) can only be asked with unsafe code; Linux
/// has said 100 to user space on every architecture since 2.6, bar Alpha and Itanium.
const TICKS: f64 = 100.0;

pub const FAMILIES: [(Family, MetricType); 7] = [
    (Family("process_cpu_seconds_total", "User and system CPU time.", &[]), MetricType::COUNTER),
    (Family("process_open_fds", "Open file descriptors.", &[]), MetricType::GAUGE),
    (Family("process_max_fds", "Most file descriptors allowed.", &[]), MetricType::GAUGE),
    (Family("process_resident_memory_bytes", "Resident memory.", &[]), MetricType::GAUGE),
    (Family("process_virtual_memory_bytes", "Virtual memory.", &[]), MetricType::GAUGE),
    (Family("process_threads", "Threads.", &[]), MetricType::GAUGE),
    (
        Family("process_start_time_seconds", "When the process began, Unix time.", &[]),
        MetricType::GAUGE,
    ),
];

/// Kept open, because a scrape is needed most when nothing more can be opened.
pub struct Files {
    stat: Kept,
    status: Kept,
    limits: Kept,
    /// When the machine began, Unix time in seconds.
    boot: Option<f64>,
}

/// What /proc said; the order is that of `FAMILIES`. None: it could not be read.
pub type Values = [Option<f64>; 7];

impl Files {
    pub fn open() -> Self {
        Self {
            stat: Kept::open("/proc/self/stat"),
            status: Kept::open("/proc/self/status"),
            limits: Kept::open("/proc/self/limits"),
            boot: Kept::open("/proc/stat").read().and_then(|text| boot_time(&text)),
        }
    }

    pub fn read(&self) -> Values {
        let stat = self.stat.read().unwrap_or_default();
        let status = self.status.read().unwrap_or_default();
        let limits = self.limits.read().unwrap_or_default();
        let max = field(&limits, "Max open files");
        // Start times in /proc count from the boot.
        let start =
            after_command(&stat, 19).zip(self.boot).map(|(ticks, boot)| ticks / TICKS + boot);
        [
            cpu(&stat),
            open_fds(max),
            max,
            kib(&status, "VmRSS:"),
            kib(&status, "VmSize:"),
            field(&status, "Threads:"),
            start,
        ]
    }
}

struct Kept {
    path: &'static str,
    file: Option<File>,
}

impl Kept {
    fn open(path: &'static str) -> Self {
        Self { path, file: File::open(path).ok() }
    }

    fn read(&self) -> Option<String> {
        // A kept file is that of the process that opened it: after a fork it fails, so open anew.
        let kept = self.file.as_ref().and_then(|file| whole(file).ok());
        kept.or_else(|| whole(&File::open(self.path).ok()?).ok())
    }
}

/// At most 64 KiB, so that /proc/stat of a machine with very many cores costs no more than others.
fn whole(file: &File) -> io::Result<String> {
    let mut text = vec![0; 64 * 1024];
    let mut length = 0;
    while let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    text.truncate(length);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The field `at` (from 0) of /proc/self/stat behind the command, which may itself hold spaces and
/// parentheses.
fn after_command(stat: &str, at: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(at)?.parse().ok()
}

fn cpu(stat: &str) -> Option<f64> {
    Some((after_command(stat, 11)? + after_command(stat, 12)?) / TICKS)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kib(status: &str, name: &str) -> Option<f64> {
    field(status, name).map(|kib| kib * 1024.0)
}

fn boot_time(stat: &str) -> Option<f64> {
    field(stat, "btime").or_else(|| {
        // A machine with so many cores that `btime` lies beyond what we read: uptime is near enough.
        let uptime: f64 =
            std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Some(now.as_secs_f64() - uptime)
    })
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus numbers are floats")]
fn open_fds(max: Option<f64>) -> Option<f64> {
    match std::fs::read_dir("/proc/self/fd") {
        // Less the one that this reading itself holds open.
        Ok(entries) => Some(entries.count().saturating_sub(1) as f64),
        // Not one more can be opened, so as many are open as may be.
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => max,
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a b) c) S 1 42 42 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 9 0 \
                        1000 123456 789 18446744073709551615";

    #[test]
    fn stat_is_read_behind_the_command() {
        assert_eq!(cpu(STAT), Some(4.0));
        assert_eq!(after_command(STAT, 19), Some(1000.0));
    }

    #[test]
    fn broken_files_say_nothing() {
        for text in ["", "42", "42 (x) S", ")", "VmRSS:"] {
            assert_eq!(cpu(text), None, "{text:?}");
            assert_eq!(kib(text, "VmRSS:"), None, "{text:?}");
        }
    }

    #[test]
    fn fields_have_their_units() {
        assert_eq!(kib("VmSize:\t   8 kB\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!(field("Max open files   1024  4096  files\n", "Max open files"), Some(1024.0));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_can_be_read() {
        let values = Files::open().read();
        assert!(values.iter().all(Option::is_some), "{values:?}");
        let [_, open, max, resident, ..] = values.map(Option::unwrap);
        assert!(open >= 3.0 && open <= max, "{open} of {max}");
        assert!(resident > 1e6, "{resident}");
    }
}
