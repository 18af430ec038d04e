//! A network of namespaces, for one history: everybody in one of his own, with one wire to a bridge that has one too. Nothing
//! outside of them is touched, and they go when this is dropped.
//!
//! Everybody knows everybody's address on the wire from the start and for good (permanent neighbours). A way is cut by
//! telling the sender an address that nobody has: what it sends vanishes, and what comes the other way arrives. It takes
//! no packet filter, which not every kernel has.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::who::Who;

/// Names of our namespaces begin with it; the process id follows.
const PREFIX: &str = "weir-chaos-";
/// What nobody has on the wire.
const NOBODY: &str = "02:77:00:00:ff:ff";
const BRIDGE: &str = "bridge";

/// Why there can be no such network here, if so.
pub(crate) fn impossible() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root to make network namespaces".to_owned());
    }
    let name = format!("{PREFIX}{}-try", std::process::id());
    let tried = ip(&["netns", "add", &name]).and_then(|()| ip(&["netns", "del", &name]));
    tried.err().map(|error| format!("network namespaces cannot be made here: {error:#}"))
}

/// What processes left that ended without cleaning up.
pub(crate) fn remove_leftovers() -> Result<()> {
    let mut dead = BTreeSet::new();
    for name in names()? {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim() != "weir-chaos" {
            dead.insert(pid);
        }
    }
    // Dropped, they are removed.
    dead.into_iter().for_each(|pid| drop(Network { prefix: format!("{PREFIX}{pid}") }));
    Ok(())
}

/// The namespaces of one history.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
}

impl Network {
    /// Lays it.
    pub(crate) fn lay() -> Result<Self> {
        let network = Self { prefix: format!("{PREFIX}{}", std::process::id()) };
        let bridge = network.namespace(BRIDGE);
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", BRIDGE, "up"])?;
        for who in Who::all() {
            let (there, wire) = (network.namespace(who), who.to_string());
            ip(&["netns", "add", &there])?;
            ip(&["-n", &there, "link", "set", "lo", "up"])?;
            ip(&[
                "link", "add", &wire, "netns", &bridge, "type", "veth", "peer", "name", "eth0", "netns",
                &there,
            ])?;
            ip(&["-n", &bridge, "link", "set", &wire, "master", BRIDGE, "up"])?;
            ip(&["-n", &there, "link", "set", "eth0", "address", &who.mac()])?;
            ip(&["-n", &there, "addr", "add", &format!("{}/24", who.ip()), "dev", "eth0"])?;
            ip(&["-n", &there, "link", "set", "eth0", "up"])?;
            for other in Who::all().filter(|other| *other != who) {
                ip(&way(&network.prefix, who, other, true).each_ref().map(String::as_str))?;
            }
        }
        Ok(network)
    }

    /// What its namespaces' names begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn namespace(&self, of: impl std::fmt::Display) -> String {
        namespace(&self.prefix, of)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in names().unwrap_or_default() {
            if name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('-'))
                && let Err(error) = remove(&name)
            {
                println!("chaos: {error:#}");
            }
        }
    }
}

/// The namespace of somebody.
pub(crate) fn namespace(prefix: &str, of: impl std::fmt::Display) -> String {
    format!("{prefix}-{of}")
}

/// The command, for `ip`, that opens or cuts the way from one to another.
pub(crate) fn way(prefix: &str, from: Who, to: Who, open: bool) -> [String; 11] {
    let mac = if open { to.mac() } else { NOBODY.to_owned() };
    let words = ["-n", &namespace(prefix, from), "neigh", "replace", &to.ip().to_string(), "lladdr", &mac];
    let [a, b, c, d, e, f, g] = words.map(str::to_owned);
    let [h, i, j, k] = ["dev", "eth0", "nud", "permanent"].map(str::to_owned);
    [a, b, c, d, e, f, g, h, i, j, k]
}

/// The command, for `ip`, that plugs somebody's wire in or pulls it out, at the bridge.
pub(crate) fn wire(prefix: &str, who: Who, plugged: bool) -> [String; 6] {
    let state = if plugged { "up" } else { "down" };
    ["-n", &namespace(prefix, BRIDGE), "link", "set", &who.to_string(), state].map(str::to_owned)
}

/// Ends what runs in a namespace, and removes it.
fn remove(name: &str) -> Result<()> {
    let listed = Command::new("ip").args(["netns", "pids", name]).output()?;
    for pid in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            // It may be gone by now.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    ip(&["netns", "del", name])
}

/// All of ours, of whichever process.
fn names() -> Result<Vec<String>> {
    let entries = match fs::read_dir("/run/netns") {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("cannot list network namespaces: {error}"),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| name.starts_with(PREFIX)).collect())
}

/// Runs `ip`.
pub(crate) fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}

/// Runs a program that says nothing when all is well.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}
