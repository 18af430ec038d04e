//! How far it is, for people who watch: a bar on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it is drawn, a second.
const DRAWS_PER_SECOND: u8 = 10;

/// A bar; it goes away when one of its shares is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many bytes, if that is known. Without a terminal on stderr nothing is ever drawn.
    pub(crate) fn new(size: Option<u64>) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        // A pipe has no end to be measured against; it is drawn only where there is a file.
        let Some(size) = size else { return Self(ProgressBar::hidden()) };
        let bar = ProgressBar::with_draw_target(Some(size), target);
        let style = ProgressStyle::with_template(
            "{bar:32} {percent:>3}%  {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        );
        // The template is ours and right; a bar without it is still a bar.
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// It is here now, in bytes.
    pub(crate) fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Lets somebody else write to stderr.
    pub(crate) fn beside(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
