//! The workspace as `cargo metadata` tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A crate of this repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The package name, such as `weir-storage`.
    pub name: String,
    /// Its folder, relative to the top of the repository, such as `crates/storage`.
    pub folder: String,
}

/// All members, and which package depends directly on which. Only normal dependencies count: what a crate
/// uses to build or test itself is not in what runs. Versions of one package are not told apart.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// The crates of this repository, by name.
    pub members: BTreeMap<String, Member>,
    /// Package name to the names of its direct normal dependencies, third parties included.
    pub edges: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    /// Asks cargo, without network, for the machine this runs on (what another platform would add may never
    /// have been fetched).
    ///
    /// # Errors
    /// If cargo does not answer.
    pub fn load() -> Result<Self> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--locked"])
            .args(["--filter-platform", &host()?])
            .current_dir(Self::root())
            .output()
            .context("cannot start cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::parse(&serde_json::from_slice(&output.stdout)?)
    }

    /// The top folder of the repository.
    #[must_use]
    pub fn root() -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.parent().unwrap_or(here).to_path_buf()
    }

    fn parse(metadata: &Value) -> Result<Self> {
        let root = text(metadata, "workspace_root")?;
        let mut names = BTreeMap::new();
        let mut found = Self::default();
        for package in list(metadata, "packages")? {
            let (id, name) = (text(package, "id")?, text(package, "name")?);
            names.insert(id, name);
            // A member has no source: it came from no registry.
            if package.get("source").is_some_and(Value::is_null) {
                let manifest = Path::new(text(package, "manifest_path")?);
                let folder = manifest.parent().unwrap_or(manifest).strip_prefix(root)?;
                let member = Member { name: name.to_owned(), folder: folder.display().to_string() };
                found.members.insert(name.to_owned(), member);
            }
        }
        let resolve = metadata.get("resolve").context("cargo metadata without a resolve")?;
        for node in list(resolve, "nodes")? {
            let from = name_of(&names, text(node, "id")?)?;
            let edges = found.edges.entry(from).or_default();
            for dep in list(node, "deps")? {
                let kinds = list(dep, "dep_kinds")?;
                if kinds.iter().any(|kind| kind.get("kind").is_some_and(Value::is_null)) {
                    edges.insert(name_of(&names, text(dep, "pkg")?)?);
                }
            }
        }
        Ok(found)
    }

    /// Everything that `name` depends on, directly or not, with the way there: each package maps to the one
    /// that brought it in.
    #[must_use]
    pub fn reach<'a>(&'a self, name: &'a str) -> BTreeMap<&'a str, &'a str> {
        let mut brought_by = BTreeMap::new();
        let mut open = vec![name];
        while let Some(from) = open.pop() {
            for to in self.edges.get(from).into_iter().flatten() {
                if to != name && !brought_by.contains_key(to.as_str()) {
                    brought_by.insert(to.as_str(), from);
                    open.push(to);
                }
            }
        }
        brought_by
    }
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let said = String::from_utf8(output.stdout)?;
    match said.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(triple) => Ok(triple.to_owned()),
        None => bail!("rustc -vV names no host: {said}"),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("no text {key:?} in cargo metadata"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value.get(key).and_then(Value::as_array).with_context(|| format!("no list {key:?} in cargo metadata"))
}

fn name_of(names: &BTreeMap<&str, &str>, id: &str) -> Result<String> {
    Ok((*names.get(id).with_context(|| format!("package id {id:?} is not among the packages"))?).to_owned())
}
