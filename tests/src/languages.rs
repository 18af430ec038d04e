//! The programs of `clients/`, as `cargo xtask stubs` has compiled them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::layering::Workspace;
use crate::tools::skip;

/// A language that has stubs.
#[derive(Clone, Copy, Debug)]
pub struct Language {
    /// As its folder under `clients/` is called.
    pub name: &'static str,
    /// A file that is there once everything is compiled, from the top of the repository.
    compiled: &'static str,
    command: fn(&Path, &str) -> Command,
}

/// All of them.
pub const LANGUAGES: [Language; 4] = [
    Language { name: "python", compiled: "clients/python/gen/weir/v1/__init__.py", command: python },
    Language { name: "go", compiled: ".tools/go/conformance", command: go },
    Language { name: "java", compiled: "clients/java/target/dependency", command: java },
    Language { name: "typescript", compiled: "clients/typescript/dist/conformance.js", command: typescript },
];

impl Language {
    /// One of its programs (`conformance`, `quickstart`); nothing if they are not compiled here, which is an error
    /// where `CI` is set.
    ///
    /// # Errors
    /// Where `CI` is set and it is not compiled.
    pub fn program(&self, name: &str) -> Result<Option<Command>> {
        let root = Workspace::root();
        if root.join(self.compiled).exists() {
            return Ok(Some((self.command)(&root, name)));
        }
        skip(&format!("the stubs of {0} are not compiled: cargo xtask stubs {0}", self.name))?;
        Ok(None)
    }
}

fn python(root: &Path, name: &str) -> Command {
    let mut command = Command::new("python3");
    let paths: [PathBuf; 2] = [root.join(".tools/python"), root.join("clients/python/gen")];
    command.env("PYTHONPATH", std::env::join_paths(paths).unwrap_or_default());
    command.arg(root.join(format!("clients/python/{name}.py")));
    command
}

fn go(root: &Path, name: &str) -> Command {
    Command::new(root.join(".tools/go").join(name))
}

fn java(root: &Path, name: &str) -> Command {
    let class = if name == "quickstart" { "Quickstart" } else { "Conformance" };
    let mut command = Command::new("java");
    command.current_dir(root.join("clients/java"));
    command.args(["-cp", "target/classes:target/dependency/*", &format!("dev.weir.examples.{class}")]);
    command
}

fn typescript(root: &Path, name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(root.join(format!("clients/typescript/dist/{name}.js")));
    command
}
