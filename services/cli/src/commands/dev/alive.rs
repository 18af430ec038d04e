//! Processes that were started, found again by a later command. A pid alone says nothing: the system gives it to
//! somebody else in time. With it are noted when the process began, in which life of the machine, and it is held fast
//! (a pidfd) before that is compared, so that no signal ever reaches another process.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that runs.
#[derive(Debug)]
pub(super) struct Alive {
    pub(super) pid: i32,
    /// Stopped by a signal, until another one lets it go on.
    pub(super) paused: bool,
    held: OwnedFd,
}

impl Alive {
    /// Sends a signal.
    pub(super) fn send(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.held, signal)?)
    }

    /// Where it works, if that is another folder than this one, whatever each is called.
    pub(super) fn elsewhere(&self, dir: &Path) -> io::Result<Option<PathBuf>> {
        let place = PathBuf::from(format!("/proc/{}/cwd", self.pid));
        let (there, here) = match fs::metadata(&place) {
            Ok(there) => (there, fs::metadata(dir)?),
            // It has ended meanwhile, or is about to: it works nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        let same = (there.dev(), there.ino()) == (here.dev(), here.ino());
        Ok((!same).then(|| fs::read_link(&place).unwrap_or(place)))
    }
}

/// Notes a process that was just started, and is not waited for by anybody else.
pub(super) fn note(file: &Path, pid: u32) -> io::Result<()> {
    let gone = || io::Error::other("the process is gone already");
    let seen = look(i32::try_from(pid).map_err(io::Error::other)?)?.ok_or_else(gone)?;
    fs::write(file, format!("{pid} {} {}\n", seen.began, boot()?))
}

/// The process that was noted, if it is still there.
pub(super) fn find(file: &Path) -> io::Result<Option<Alive>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut words = text.split_whitespace();
    let (pid, began) = (words.next().and_then(|pid| pid.parse().ok()), words.next());
    let Some((pid, began)) = pid.zip(began) else {
        return Err(io::Error::other(format!("{} is no pid file", file.display())));
    };
    let Some(raw) = Pid::from_raw(pid) else { return Ok(None) };
    let held = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Whoever has the pid now keeps it while it is held: what is read is of the one that gets the signals.
    let same = look(pid)?.filter(|seen| seen.began == began && !seen.ended);
    let this_boot = words.next() == Some(boot()?.as_str());
    Ok(same.filter(|_| this_boot).map(|seen| Alive { pid, paused: seen.paused, held }))
}

/// What the system says of a pid.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// In ticks since the machine started: with the pid, its name for ever.
    began: String,
    paused: bool,
    /// Over, and only not waited for yet.
    ended: bool,
}

fn look(pid: i32) -> io::Result<Option<Seen>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => seen(&stat)
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood: {stat}"))),
        // Gone before, or while it was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn seen(stat: &str) -> Option<Seen> {
    // The name in the brackets is the program's to choose, brackets and all.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?;
    // The state is the third field, the beginning the 22nd.
    let began = words.nth(18)?.to_owned();
    Some(Seen { began, paused: matches!(state, "T" | "t"), ended: matches!(state, "Z" | "X" | "x") })
}

/// Which life of the machine this is: pids and ticks begin anew with each.
fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn a_process_is_found_paused_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        assert!(find(&file).unwrap().is_none());
        let mut child = sleeper();
        note(&file, child.id()).unwrap();
        let alive = find(&file).unwrap().unwrap();
        assert!(!alive.paused && alive.pid.unsigned_abs() == child.id());
        alive.send(Signal::STOP).unwrap();
        // Until it has stopped.
        let waited =
            rustix::process::waitpid(Pid::from_raw(alive.pid), rustix::process::WaitOptions::UNTRACED);
        assert!(waited.unwrap().unwrap().1.stopped());
        assert!(find(&file).unwrap().unwrap().paused);
        alive.send(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(find(&file).unwrap().is_none());
        alive.send(Signal::KILL).unwrap_err();
    }

    #[test]
    fn a_process_that_works_in_another_folder_is_told() {
        let (ours, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = ours.path().join("pid");
        let mut child = Command::new("sleep").arg("600").current_dir(ours.path()).spawn().unwrap();
        note(&file, child.id()).unwrap();
        let alive = find(&file).unwrap().unwrap();
        assert_eq!(alive.elsewhere(ours.path()).unwrap(), None);
        let place = alive.elsewhere(copy.path()).unwrap().unwrap();
        assert_eq!(place, ours.path().canonicalize().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(alive.elsewhere(copy.path()).unwrap(), None, "it has ended");
    }

    #[test]
    fn a_pid_that_somebody_else_has_by_now_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let mut child = sleeper();
        note(&file, child.id()).unwrap();
        let noted = fs::read_to_string(&file).unwrap();
        let words: Vec<&str> = noted.split_whitespace().collect();
        let [pid, began, boot] = words[..] else { panic!("{noted}") };
        for other in [format!("{pid} {began}1 {boot}"), format!("{pid} {began} another-boot")] {
            fs::write(&file, other).unwrap();
            assert!(find(&file).unwrap().is_none());
        }
        fs::write(&file, "nonsense").unwrap();
        assert!(find(&file).unwrap_err().to_string().contains("is no pid file"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) T) x (b) Z {}", fields.join(" "));
        assert_eq!(seen(&stat), Some(Seen { began: "22".to_owned(), paused: false, ended: true }));
        assert_eq!(seen("7 (a) S 1"), None);
    }
}
