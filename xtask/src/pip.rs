//! Python packages into a folder of their own, pinned by version and hash.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use crate::steps::root;

/// Makes `target` hold exactly what `requirements` (a file, relative to the top) pins. Does nothing if it does
/// already. `why` says in a sentence what it is needed for, should python3 or pip be missing.
pub(crate) fn install(requirements: &str, target: &Path, why: &str) -> Result<(), String> {
    let python = Command::new("python3").arg("--version").output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            format!("needs python3 with pip on the PATH: {why}. (Building and running Weir needs neither.)")
        }
        _ => format!("cannot start python3: {e}. It is needed because {why}."),
    })?;
    let pins = root().join(requirements);
    let mut wanted = fs::read(&pins).map_err(|e| format!("cannot read {}: {e}", pins.display()))?;
    // Some wheels fit one version of Python only.
    wanted.extend(python.stdout);
    if fs::read(target.join("pins.txt")).is_ok_and(|held| held == wanted) {
        return Ok(());
    }
    eprintln!("==> fetching what {requirements} names into {}", target.display());
    // A folder beside it and a rename, so that a half-fetched one is never taken for whole.
    let fresh = target.with_extension(std::process::id().to_string());
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--root-user-action=ignore", "--require-hashes", "--only-binary", ":all:", "--no-deps"])
        .arg("--requirement")
        .arg(&pins)
        .arg("--target")
        .arg(&fresh)
        .status()
        .map_err(|e| format!("cannot start python3: {e}"))?;
    if !status.success() {
        return Err(format!(
            "pip failed, see above. It is needed because {why}; on Debian it is the package python3-pip."
        ));
    }
    fs::write(fresh.join("pins.txt"), wanted)
        .and_then(|()| remove(target))
        .and_then(|()| fs::rename(&fresh, target))
        .map_err(|e| format!("cannot move {} into place: {e}", fresh.display()))
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
