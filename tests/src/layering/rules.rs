//! The layering, as rules that return what they find wrong: an empty list is a pass.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Workspace;

/// The rows of ARCHITECTURE.md, the lowest first.
const ROWS: &[&[&str]] = &[
    &["weir-io", "weir-runtime"],
    &["weir-types", "weir-proto"],
    &["weir-record", "weir-metadata", "weir-replication"],
    &["weir-client", "weir-cluster", "weir-load", "weir-rpc", "weir-storage", "weir-config", "weir-process"],
    &["weir-broker", "weir-controller", "weir-standalone", "weir-cli"],
];

/// Its arrows within a row.
const ARROWS: &[(&str, &str)] = &[
    ("weir-runtime", "weir-io"),
    ("weir-client", "weir-rpc"),
    ("weir-cluster", "weir-rpc"),
    ("weir-load", "weir-rpc"),
    ("weir-process", "weir-config"),
    ("weir-standalone", "weir-broker"),
    ("weir-standalone", "weir-controller"),
    ("weir-cli", "weir-standalone"),
];

/// One crate and what must never be in its dependency tree.
struct Never {
    who: &'static str,
    what: &'static [&'static str],
    why: &'static str,
}

const NEVER: &[Never] = &[
    Never {
        who: "weir-record",
        what: &["weir-storage", "weir-runtime", "weir-rpc", "tokio", "tonic"],
        why: "a batch is bytes: what packs and checks it runs anywhere",
    },
    Never {
        who: "weir-storage",
        what: &["weir-proto", "weir-rpc", "weir-replication", "weir-metadata", "tonic"],
        why: "the log knows offsets and bytes, not who asks for them",
    },
    Never {
        who: "weir-replication",
        what: &["tokio", "tonic", "weir-runtime", "weir-io", "weir-storage", "weir-proto", "rand"],
        why: "a pure state machine: a model checker and the product run the same code",
    },
    Never {
        who: "weir-metadata",
        what: &["tokio", "tonic", "weir-runtime", "weir-io", "weir-storage", "weir-proto", "rand"],
        why: "a pure state machine: every controller applies the same commands to the same end",
    },
    Never {
        who: "weir-cluster",
        what: &["weir-storage", "weir-replication", "weir-config"],
        why: "the map of the cluster says where logs are, not what is in them",
    },
    Never {
        who: "weir-client",
        what: &["weir-storage", "weir-replication", "weir-metadata"],
        why: "users link the SDK; they do not link a broker",
    },
    Never {
        who: "weir-proto",
        what: &["weir-storage", "weir-replication", "weir-metadata", "weir-rpc"],
        why: "the wire is beneath all that speaks over it",
    },
];

/// One crate and the only crates of this repository that it may depend on.
struct Only {
    who: &'static str,
    weir: &'static [&'static str],
    why: &'static str,
}

const ONLY: &[Only] = &[
    Only { who: "weir-types", weir: &[], why: "it is the bottom" },
    Only { who: "weir-io", weir: &[], why: "runtime and storage both stand on it" },
    Only { who: "weir-runtime", weir: &["weir-io"], why: "everything stands on the one door to the outside" },
    Only { who: "weir-replication", weir: &["weir-types"], why: "a pure core" },
    Only { who: "weir-metadata", weir: &["weir-types"], why: "a pure core" },
    Only { who: "weir-xtask", weir: &[], why: "it must start before anything else is built" },
];

/// A crate depends on lower rows, and within its own only where an arrow says so. What stands beside the rows (tests,
/// measurements, the daily commands) may depend on all of them.
#[must_use]
pub fn against_the_rows(workspace: &Workspace) -> Vec<String> {
    let row = |name: &str| ROWS.iter().position(|row| row.contains(&name));
    let mut wrong = Vec::new();
    for (name, _) in workspace.members.iter().filter(|(_, member)| member.folder.contains('/')) {
        let Some(own) = row(name) else {
            wrong.push(format!("{name} stands in no row of ARCHITECTURE.md"));
            continue;
        };
        let direct = workspace.edges.get(name).into_iter().flatten();
        for found in direct.filter(|found| workspace.members.contains_key(*found)) {
            let below = row(found).is_some_and(|row| row < own);
            if !below && !ARROWS.contains(&(name.as_str(), found.as_str())) {
                wrong.push(format!("{name} must not depend on {found}, which stands in no row below it"));
            }
        }
    }
    wrong
}

/// The fixed tables above: what some crates never depend on, and what some depend on at most.
#[must_use]
pub fn forbidden_dependencies(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    for Never { who, what, why } in NEVER {
        let reach = workspace.reach(who);
        for taboo in *what {
            if let Some(by) = reach.get(taboo) {
                wrong.push(format!("{who} must not depend on {taboo} (brought in by {by}): {why}"));
            }
        }
    }
    for Only { who, weir, why } in ONLY {
        for (found, by) in workspace.reach(who) {
            if workspace.members.contains_key(found) && !weir.contains(&found) {
                wrong.push(format!("{who} must not depend on {found} (brought in by {by}): {why}"));
            }
        }
    }
    wrong
}

/// A rule about a crate that is not there protects nothing: a renamed crate must take its rule along.
#[must_use]
pub fn rules_without_a_crate(workspace: &Workspace) -> Vec<String> {
    let rules = NEVER.iter().map(|rule| rule.who).chain(ONLY.iter().map(|rule| rule.who));
    let named: BTreeSet<&str> = rules.chain(ROWS.iter().flat_map(|row| row.iter().copied())).collect();
    named
        .into_iter()
        .filter(|who| !workspace.members.contains_key(*who))
        .map(|who| format!("the layering has a rule for {who}, which is not in the workspace"))
        .collect()
}

/// Services meet only in `standalone`, which `cli` starts; and nothing below knows that services exist.
#[must_use]
pub fn services_apart(workspace: &Workspace) -> Vec<String> {
    const PUT_TOGETHER: [&str; 3] = ["weir-standalone", "weir-cli", "weir-tests"];
    let service =
        |name: &str| workspace.members.get(name).is_some_and(|member| member.folder.starts_with("services/"));
    let mut wrong = Vec::new();
    for (name, member) in &workspace.members {
        let may_all = PUT_TOGETHER.contains(&name.as_str()) || !member.folder.contains('/');
        for (found, by) in workspace.reach(name) {
            if service(found) && !may_all {
                wrong.push(format!("{name} must not depend on the service {found} (brought in by {by})"));
            }
            // The command line is the top: only the tests of the whole may use it as a library.
            if found == "weir-cli" && name != "weir-tests" {
                wrong.push(format!("{name} must not depend on weir-cli (brought in by {by})"));
            }
        }
    }
    let direct = workspace.edges.get("weir-cli").into_iter().flatten();
    for found in direct.filter(|found| service(found) && *found != "weir-standalone") {
        wrong
            .push(format!("weir-cli must not depend on {found}: it starts services through weir-standalone"));
    }
    wrong
}

/// Randomness comes from one function, in `crates/runtime`: nobody else even names a crate that makes it.
#[must_use]
pub fn one_source_of_randomness(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    for member in workspace.members.keys().filter(|name| *name != "weir-runtime") {
        for found in workspace.edges.get(member).into_iter().flatten() {
            if ["rand", "getrandom", "fastrand"].contains(&found.as_str()) {
                wrong.push(format!("{member} must not depend on {found}: use weir_runtime::Os::random_u64"));
            }
        }
    }
    wrong
}

/// Product code does not depend on what exists for tests.
#[must_use]
pub fn tests_outside(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, member) in &workspace.members {
        let product = member.folder.contains('/');
        for (found, by) in workspace.reach(name) {
            if product && ["weir-tests", "proptest"].contains(&found) {
                wrong.push(format!(
                    "{name} must not depend on {found} (brought in by {by}) outside its tests"
                ));
            }
        }
    }
    wrong
}

/// Every member takes the workspace's lints, and every dependency's version from the one place for it.
/// `read` gives the text of a file by its path relative to the top.
///
/// # Errors
/// If a file cannot be read or is no TOML.
pub fn one_place(workspace: &Workspace, read: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, member) in &workspace.members {
        let path = format!("{}/Cargo.toml", member.folder);
        let manifest: Table = read(&path)?.parse().with_context(|| path.clone())?;
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints != Some(&Value::Boolean(true)) {
            wrong.push(format!("{path}: {name} must say [lints] workspace = true"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (dependency, spec) in manifest.get(section).and_then(Value::as_table).into_iter().flatten() {
                if spec.get("workspace") != Some(&Value::Boolean(true)) {
                    wrong.push(format!("{path}: [{section}] {dependency} must say workspace = true"));
                }
            }
        }
    }
    Ok(wrong)
}

/// Reads a file of the repository, for [`one_place`].
///
/// # Errors
/// If it cannot be read.
pub fn read_file(path: &str) -> Result<String> {
    let path = Workspace::root().join(Path::new(path));
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
