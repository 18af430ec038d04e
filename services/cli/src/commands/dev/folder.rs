//! The folder of a cluster: which nodes there are, how a new one is laid out.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use weir_io::{LockError, LockGuard};
use weir_types::{did_you_mean, nearest};

use super::node::{self, Node, Role, io_error};
use crate::error::{Error, Result};
use crate::session::Session;

/// Ports of one node lie together: those of the next one so far behind.
const NODE_STEP: u16 = 10;
/// Where a cluster looks next for its ports if some are taken.
const CLUSTER_STEP: u16 = 1_000;
/// How often.
const TRIES: u16 = 20;
/// How many of each kind there may be: their ports must not meet.
pub(super) const NODES_MAX: u16 = 50;

/// A cluster's folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Controllers first, by number.
    pub(super) nodes: Vec<Node>,
}

impl Folder {
    /// What is there; nothing, if there is no such folder.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|source| io_error(format!("cannot use {}", path.display()), source))?;
        let failed = |source| io_error(format!("cannot read {}", path.display()), source);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>().map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut nodes = Vec::new();
        for entry in entries {
            let (dir, name) = (entry.path(), entry.file_name());
            let known = name.to_str().and_then(named);
            if let Some((role, number)) = known.filter(|_| dir.join("weir.toml").exists()) {
                nodes.push(node::read(&dir, role, number)?);
            }
        }
        nodes.sort_by_key(|node| (node.role, node.number));
        Ok(Self { path, nodes })
    }

    /// The same of a cluster that must be there.
    pub(super) fn existing(path: &Path) -> Result<Self> {
        let folder = Self::read(path)?;
        if folder.nodes.is_empty() {
            let what = format!("there is no cluster in {}: weir dev up makes one", folder.path.display());
            return Err(Error::NotFound(what));
        }
        Ok(folder)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the folder for one command: what two would start at once would get in each other's way.
    pub(super) fn lock(&self, session: &Session) -> Result<LockGuard> {
        fs::create_dir_all(&self.path)
            .map_err(|source| io_error(format!("cannot make {}", self.path.display()), source))?;
        let lock = self.path.join("lock");
        session.os().disk().lock(&lock, &std::process::id().to_string()).map_err(|error| match error {
            LockError::Held(owner) => Error::Failed(format!(
                "another weir dev works on {} (process {owner}): wait until it is done",
                self.path.display()
            )),
            LockError::Io(source) => io_error(format!("cannot lock {}", lock.display()), source),
        })
    }

    /// Whether its cluster has begun: whether some controller was ready once. It never begins twice.
    pub(super) fn founded(&self) -> bool {
        self.founded_file().exists()
    }

    /// Notes that it has.
    pub(super) fn set_founded(&self) -> Result<()> {
        let file = self.founded_file();
        fs::write(&file, "").map_err(|source| io_error(format!("cannot write {}", file.display()), source))
    }

    fn founded_file(&self) -> PathBuf {
        self.path.join("founded")
    }

    /// The nodes of one kind.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    /// Nodes by name.
    pub(super) fn named(&self, names: &[String]) -> Result<Vec<&Node>> {
        let known: Vec<String> = self.nodes.iter().map(Node::name).collect();
        let find = |name: &String| {
            self.nodes.iter().find(|node| node.name() == *name).ok_or_else(|| {
                let hint = did_you_mean(nearest(name, known.iter().map(String::as_str)));
                Error::NotFound(format!("there is no node {name}{hint}: there are {}", known.join(", ")))
            })
        };
        names.iter().map(find).collect()
    }

    /// Lays out a new cluster, or more brokers of this one, with ports from `first_port` on, or from the next that are
    /// free together.
    pub(super) fn grow(&mut self, brokers: u16, controllers: u16, first_port: u16) -> Result<()> {
        let new: Vec<(Role, u16)> = [(Role::Controller, controllers), (Role::Broker, brokers)]
            .into_iter()
            .flat_map(|(role, count)| (1..=count).map(move |number| (role, number)))
            .filter(|(role, number)| {
                !self.nodes.iter().any(|node| (node.role, node.number) == (*role, *number))
            })
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let taken = || {
            let what = format!(
                "found no free ports for {} nodes from {first_port} on: name others with --port",
                new.len()
            );
            Error::Failed(what)
        };
        let from = (0..TRIES).filter_map(|step| first_port.checked_add(CLUSTER_STEP.checked_mul(step)?));
        let from = from.into_iter().find(|from| {
            let ports = new.iter().flat_map(|(role, number)| Ports::of(*from, *role, *number).all());
            // All at once, so that none is given twice.
            let bound: io::Result<Vec<_>> = ports.map(|port| TcpListener::bind(local(port))).collect();
            bound.is_ok()
        });
        let from = from.ok_or_else(taken)?;
        let mut controllers: Vec<String> =
            self.of(Role::Controller).map(|node| node.addr.to_string()).collect();
        for (role, number) in new {
            let ports = Ports::of(from, role, number);
            let dir = self.path.join(format!("{}-{number}", role.word()));
            let (addr, http, internal) = (local(ports.main), local(ports.http), ports.internal.map(local));
            let node = Node { role, number, addr, http, internal, dir };
            if role == Role::Controller {
                controllers.push(node.addr.to_string());
            }
            let text = config(&node, &ports, &controllers);
            let written = fs::create_dir_all(&node.dir).and_then(|()| fs::write(node.config(), text));
            written
                .map_err(|source| io_error(format!("cannot write {}", node.config().display()), source))?;
            self.nodes.push(node);
        }
        self.nodes.sort_by_key(|node| (node.role, node.number));
        Ok(())
    }
}

/// What a node of this name is.
fn named(name: &str) -> Option<(Role, u16)> {
    let (word, number) = name.rsplit_once('-')?;
    let role = [Role::Controller, Role::Broker].into_iter().find(|role| role.word() == word)?;
    number.parse().ok().filter(|number| *number > 0).map(|number| (role, number))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The ports of a node.
#[derive(Clone, Copy, Debug)]
struct Ports {
    main: u16,
    http: u16,
    /// Of a broker alone.
    internal: Option<u16>,
}

impl Ports {
    /// As the defaults lie: 9347 public, 9348 HTTP, 9349 controller, 9350 internal, and 9351 HTTP of the controller.
    fn of(from: u16, role: Role, number: u16) -> Self {
        let from = from.saturating_add((number - 1).saturating_mul(NODE_STEP));
        let at = |step: u16| from.saturating_add(step);
        match role {
            Role::Broker => Self { main: at(0), http: at(1), internal: Some(at(3)) },
            Role::Controller => Self { main: at(2), http: at(4), internal: None },
        }
    }

    fn all(self) -> impl Iterator<Item = u16> {
        [self.main, self.http].into_iter().chain(self.internal)
    }
}

/// The configuration file of a new node.
fn config(node: &Node, ports: &Ports, controllers: &[String]) -> String {
    let list = toml::Value::from(controllers.to_vec());
    let head = format!(
        "# Made by weir dev up. By hand, from this folder: weir-{} --config weir.toml\n\
         data_dir = \"data\"\nhttp_listen = \"{}\"\ndrain_ms = \"5s\"\n",
        node.role.word(),
        node.http
    );
    match ports.internal {
        None => format!("{head}controller_listen = \"{}\"\n", node.addr),
        Some(internal) => format!(
            "{head}listen = \"{}\"\ninternal_listen = \"{}\"\ncontrollers = {list}\n",
            node.addr,
            local(internal)
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_nodes_share_a_port_and_the_first_broker_has_the_usual_one() {
        let mut seen = BTreeSet::new();
        for role in [Role::Controller, Role::Broker] {
            for number in 1..=NODES_MAX {
                assert!(
                    Ports::of(9_347, role, number).all().all(|port| seen.insert(port)),
                    "{role:?} {number}"
                );
            }
        }
        assert_eq!(Ports::of(9_347, Role::Broker, 1).main, 9_347);
        assert!(seen.iter().all(|port| *port < 9_347 + CLUSTER_STEP), "{:?}", seen.last());
    }

    #[test]
    fn what_is_laid_out_is_found_again_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::read(dir.path()).unwrap();
        assert!(Folder::existing(dir.path()).is_err());
        folder.grow(1, 3, 21_347).unwrap();
        let again = Folder::existing(dir.path()).unwrap();
        assert_eq!(again.nodes, folder.nodes);
        let names: Vec<String> = again.nodes.iter().map(Node::name).collect();
        assert_eq!(names, ["controller-1", "controller-2", "controller-3", "broker-1"]);
        // Others' folders are nobody's.
        fs::create_dir(dir.path().join("broker-9")).unwrap();
        fs::create_dir(dir.path().join("mail-1")).unwrap();
        folder.grow(2, 3, 21_347).unwrap();
        let again = Folder::existing(dir.path()).unwrap();
        assert_eq!((again.nodes.len(), &again.nodes), (5, &folder.nodes));
        let text = fs::read_to_string(again.nodes[4].config()).unwrap();
        let controllers: Vec<String> = again.of(Role::Controller).map(|node| node.addr.to_string()).collect();
        assert!(controllers.iter().all(|controller| text.contains(controller)), "{text}");
        let error = again.named(&["brokr-1".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("did you mean \"broker-1\""), "{error}");
    }
}
