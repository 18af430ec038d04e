//! What documents promise, run: code blocks of Markdown pages and the examples that `--help` ends with.
//!
//! [`markdown`] finds the blocks, [`transcript`] reads them as commands with what they print, and compares;
//! [`world`] is the place they run in: a server of their own, a folder of their own.
//!
//! In a page, a block marked `sh` is commands, one a line; one marked `console` is commands after `$ `, each
//! with the lines it prints. `<!-- not run: why -->` before a block leaves it out.

pub mod markdown;
pub mod transcript;
pub mod world;
