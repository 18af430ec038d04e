//! What the system allows a process.

use std::path::Path;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::disable_transparent_huge_pages;

/// Raises the number of files and sockets that this process may have open to what the system allows at most, and
/// returns it; `None` is no limit. The usual 1,024 is for processes that wait with `select`.
///
/// # Errors
/// If the system does not let it be raised; it is what it was.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum)
}

/// Asks for pages of ordinary size, from now on. A system may give the first touch of any large mapping 2 MiB, which
/// is what each thread's heap is: dozens of threads that hold next to nothing then take 80 MiB.
///
/// # Errors
/// The system does not know the wish.
pub fn avoid_huge_pages() -> io::Result<()> {
    Ok(disable_transparent_huge_pages(true)?)
}

/// The memory that this process may use, in bytes: the machine's, or what its control group (of either version) or one
/// above leaves it, which is what a container's limit is. `None`: the system does not say.
pub fn memory_bytes() -> Option<u64> {
    let machine = machine_bytes(&fs::read_to_string("/proc/meminfo").ok()?);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.into_iter().chain(group_bytes(&groups, Path::new("/sys/fs/cgroup"))).min()
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit on the way from a process's control group to the root.
fn group_bytes(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let version_1 = controllers.split(',').any(|name| name == "memory");
            let (root, file) = match controllers {
                "" => (root.to_owned(), "memory.max"),
                _ if version_1 => (root.join("memory"), "memory.limit_in_bytes"),
                _ => return None,
            };
            // In a container the path may be the one outside, and the group's own files lie at the root.
            Path::new(path.trim_start_matches('/'))
                .ancestors()
                .filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok()?.trim().parse().ok())
                .min()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_and_of_its_groups() {
        assert_eq!(machine_bytes("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24 << 20));
        assert_eq!(machine_bytes("MemFree: 1 kB\n"), None);
        assert!(memory_bytes().unwrap() > 1 << 20);

        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("pods/memory.max", "2048\n");
        put("pods/weir/memory.max", "max\n");
        put("memory/old/memory.limit_in_bytes", "1024\n");
        assert_eq!(group_bytes("0::/pods/weir\n", root.path()), Some(2048), "of the group above");
        assert_eq!(group_bytes("0::/elsewhere\n", root.path()), None);
        assert_eq!(group_bytes("1:cpu:/old\n4:memory:/old\n", root.path()), Some(1024), "of version 1");
    }

    #[test]
    fn the_limit_is_what_the_system_allows() {
        let before = getrlimit(Resource::Nofile);
        let raised = raise_open_files().unwrap();
        assert_eq!(raised, before.maximum);
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: before.maximum, maximum: before.maximum });
        assert_eq!(raise_open_files().unwrap(), raised);
    }
}
