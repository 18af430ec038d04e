//! Where a figure was taken: it means little without.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// What is printed beside every table.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Of /proc/version, the release.
    pub kernel: String,
    /// The default congestion control of TCP. On loopback it matters.
    pub congestion_control: String,
    /// File system type, device and mount options of the data directory.
    pub file_system: String,
}

impl Machine {
    /// Looks around, for data under `dir`.
    #[must_use]
    pub fn describe(dir: &Path) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: word("/proc/sys/kernel/osrelease"),
            congestion_control: word("/proc/sys/net/ipv4/tcp_congestion_control"),
            file_system: file_system(dir),
        }
    }
}

fn word(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The mount that `dir` is on: the longest mount point that is a prefix of it.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best = (0, "unknown".to_owned());
    for line in table.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if dir.starts_with(point) && point.len() >= best.0 {
            let journal = if kind == "ext4" { journal(device) } else { "" };
            best = (point.len(), format!("{kind}{journal} on {device} ({options})"));
        }
    }
    best.1
}

/// Whether an ext4 has a journal decides what an fdatasync costs.
fn journal(device: &str) -> &'static str {
    let name = device.rsplit('/').next().unwrap_or(device);
    let threads = fs::read_dir("/proc").into_iter().flatten().flatten();
    let wanted = format!("jbd2/{name}");
    for entry in threads {
        if word(&entry.path().join("comm").to_string_lossy()).starts_with(&wanted) {
            return " with a journal";
        }
    }
    " without a journal"
}

/// The one-minute load average.
#[must_use]
pub fn load_average() -> f64 {
    word("/proc/loadavg").split(' ').next().and_then(|w| w.parse().ok()).unwrap_or(0.0)
}

/// The processor time that a process has used so far, in milliseconds; 0 if it is not there.
#[must_use]
pub fn cpu_ms(pid: u32) -> u64 {
    (weir_runtime::cpu_seconds(pid).unwrap_or(0.0) * 1e3).round() as u64
}

/// The largest resident set of a process so far, in MiB; 0 if it is not there.
#[must_use]
pub fn peak_memory_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Dirty and writeback pages of the whole machine, in MiB.
#[must_use]
pub fn dirty_mib() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| -> u64 {
        info.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|kb| kb.parse().ok())
            .unwrap_or(0)
    };
    (of("Dirty:") + of("Writeback:")) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_looked_at() {
        let me = std::process::id();
        assert!(peak_memory_mib(me) > 0);
        assert_eq!(cpu_ms(u32::MAX), 0);
        assert_ne!(Machine::describe(Path::new("/")).file_system, "unknown");
    }
}
