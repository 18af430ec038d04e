//! Looks at the disk's pace, says what becomes of it, and asks a slow disk that nobody else asks. A loop of its own: the
//! keeper's may hang with the disk.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;
use weir_runtime::Step;

use super::DirCore;

/// What is written to see whether a slow disk is quick again. It holds nothing, and goes when the disk is.
const PROBE: &str = "probe";
/// How much of it.
const PROBE_BYTES: usize = 4 << 10;

/// Starts the loop.
pub(super) fn start(dir: &Arc<DirCore>) {
    if !dir.pace.is_on() {
        return;
    }
    let of = Arc::clone(dir);
    // Nobody wakes it: it ends at its next turn.
    let _waker = dir.os.spawn_loop(
        "pace",
        Box::new(move || {
            let Some(_held) = of.hold().filter(|_| !of.failed()) else { return Step::Done };
            of.look_at_pace();
            Step::Wait(of.pace.every())
        }),
    );
}

impl DirCore {
    fn look_at_pace(&self) {
        let look = self.pace.look(Instant::now());
        let (path, pacing) = (self.path.display(), &self.options.pacing);
        if let Some(is_slow) = look.became {
            self.stats.disk_slow.set(u64::from(is_slow));
        }
        match look.became {
            Some(true) => tracing::warn!(
                %path, slow_flush = ?pacing.slow_flush, after = ?pacing.slow_after,
                "the disk is slow: others are to lead what they can, until it is quick again"
            ),
            Some(false) => {
                tracing::info!(%path, after = ?pacing.quick_after, "the disk is quick again");
                let _ = self.handles.disk.unlink(&self.path.join(PROBE));
            }
            None => {}
        }
        if look.is_unasked {
            self.probe(&self.path.join(PROBE));
        }
    }

    /// Writes something that nobody needs. If it fails as a write that somebody needs would, the process ends as for one.
    fn probe(&self, path: &Path) {
        let begun = Instant::now();
        let sync = self.pace.begin(begun, PROBE_BYTES as u64);
        let written = self.handles.disk.replace_durably(path, &[0; PROBE_BYTES]);
        self.pace.end(sync, written.is_ok().then(|| self.os.took(begun)));
        if let Err(error) = written {
            let passing = self.passing_or_fatal(path, "write and sync", error);
            tracing::debug!(%passing, "the disk could not be asked whether it is quick again");
        }
    }
}
