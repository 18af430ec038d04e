//! What this process takes of the machine, as the system counts it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What this process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Processor time, of all threads, seconds.
    pub cpu_seconds: f64,
    /// Memory that is really there, bytes. The page cache of its files is not in it.
    pub resident_bytes: u64,
    /// Files and sockets that are open.
    pub open_fds: u64,
    /// How many of them there may be. `None`: any number.
    pub max_fds: Option<u64>,
    /// When it was started, seconds since 1970.
    pub started_seconds: f64,
}

impl Usage {
    /// At this moment. `None`: the system does not say.
    pub fn now() -> Option<Self> {
        let boot = boot_seconds(&fs::read_to_string("/proc/stat").ok()?)?;
        let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let stat = Stat::of("self")?;
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: stat.cpu_seconds(),
            resident_bytes: stat.resident_pages * page_size() as u64,
            // Without the one that counts them.
            open_fds: open.saturating_sub(1),
            max_fds: getrlimit(Resource::Nofile).current,
            started_seconds: boot as f64 + stat.started_ticks as f64 / ticks,
        })
    }
}

/// The processor time of another process so far, of all its threads, seconds. `None`: there is none of this id.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    Some(Stat::of(&pid.to_string())?.cpu_seconds())
}

/// What is read of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    started_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn cpu_seconds(&self) -> f64 {
        self.cpu_ticks as f64 / clock_ticks_per_second() as f64
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is the program's name, in parentheses, and may hold anything. Fields count from 1.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.checked_add(field(15)?)?,
            started_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_seconds(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_program_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 9 0 5000 1000000 250 18446744073709551615";
        let parsed = Stat { cpu_ticks: 42, started_ticks: 5000, resident_pages: 250 };
        assert_eq!(Stat::parse(stat), Some(parsed));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_takes_something() {
        let usage = Usage::now().unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.open_fds >= 3, "{usage:?}");
        assert!(usage.started_seconds > 1.6e9, "{usage:?}");
    }
}
