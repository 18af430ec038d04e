//! A wire to each broker that can be cut without a word. Each is in a network namespace of its own, at the end of a pair of
//! virtual cards whose other end is in a bridge; controllers, the writer and the bridge are in this one. Taken off the
//! bridge, a broker neither hears nor is heard, and no side is told: the cards stay up, and everybody knows for good which
//! address on the wire the others have.
//!
//! Takes root and iproute2. What was laid is removed when this is dropped.

use std::process::Command;

use anyhow::{Context, ensure};

/// The bridge, as the cards are called and its number.
const BRIDGE: &str = "weir-fail";
/// Where everybody is who is not in a namespace of his own.
pub(crate) const HERE: &str = "10.78.0.1";

/// The wires.
#[derive(Debug)]
pub(crate) struct Network {
    ends: usize,
}

impl Network {
    /// Lays wires to so many brokers.
    pub(crate) fn lay(ends: usize) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "it takes root to cut a broker off");
        let network = Self { ends };
        // What an earlier run left.
        network.remove();
        ip(&format!("link add {BRIDGE} address {} type bridge", mac(0)))?;
        ip(&format!("addr add {HERE}/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        for end in 1..=ends {
            let there = namespace(end);
            ip(&format!("netns add {there}"))?;
            ip(&format!("link add {there} type veth peer name eth0 netns {there}"))?;
            ip(&format!("-n {there} link set eth0 address {}", mac(end)))?;
            ip(&format!("-n {there} addr add {}/24 dev eth0", address(end)))?;
            ip(&format!("-n {there} link set lo up"))?;
            ip(&format!("-n {there} link set eth0 up"))?;
            ip(&format!("link set {there} master {BRIDGE} up"))?;
            ip(&format!("neigh replace {} lladdr {} dev {BRIDGE} nud permanent", address(end), mac(end)))?;
            for other in (0..=ends).filter(|other| *other != end) {
                let (at, known) = (address(other), mac(other));
                ip(&format!("-n {there} neigh replace {at} lladdr {known} dev eth0 nud permanent"))?;
            }
        }
        Ok(network)
    }

    /// Cuts the wire of a broker, or mends it.
    pub(crate) fn cut(&self, end: usize, cut: bool) -> anyhow::Result<()> {
        let wire = namespace(end);
        if cut {
            ip(&format!("link set {wire} nomaster"))
        } else {
            ip(&format!("link set {wire} master {BRIDGE}"))
        }
    }

    fn remove(&self) {
        // What is not there need not be removed.
        for end in 1..=self.ends {
            let _ = ip(&format!("netns del {}", namespace(end)));
        }
        let _ = ip(&format!("link del {BRIDGE}"));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where a broker is. 0: everybody else.
pub(crate) fn address(end: usize) -> String {
    if end == 0 { HERE.to_owned() } else { format!("10.78.0.{}", 10 + end) }
}

/// The namespace of a broker, and its card at the bridge.
pub(crate) fn namespace(end: usize) -> String {
    format!("{BRIDGE}-{end}")
}

fn mac(end: usize) -> String {
    format!("02:78:00:00:00:{end:02x}")
}

fn ip(words: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output().context("cannot start ip (iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {words}: {}", said.trim());
    Ok(())
}
