//! Ports that somebody else has: said before anything is started, with who that is, as far as the system tells.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::node::Node;
use crate::error::{Error, Result};

/// Refuses to start a node whose addresses are taken: whoever has them would answer in its place.
pub(super) fn refuse(node: &Node) -> Result<()> {
    for (what, addr) in node.listeners() {
        // What else there is to say of an address, its process says.
        if TcpListener::bind(addr).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return Err(Error::Failed(format!(
                "{} cannot start: {addr}, its port for {what}, is held by {}. Stop that, or write another port into {}; a new \
                 cluster finds free ones by itself (another --dir)",
                node.name(),
                holder(addr.port()),
                node.config().display()
            )));
        }
    }
    Ok(())
}

/// Who listens on a port, in words.
fn holder(port: u16) -> String {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<PathBuf> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes = processes.filter(|entry| is_number(&entry.file_name())).map(|entry| entry.path());
    match processes.find(|process| has_one_of(process, &sockets)) {
        Some(process) => in_words(&process),
        None => "a process that this user may not look into".to_owned(),
    }
}

/// Whether it is the folder of a process, and not another name for one.
fn is_number(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// The sockets that listen on a port, as the links to them are called, by a table of the system.
fn listening(table: &str, port: u16) -> impl Iterator<Item = PathBuf> {
    const LISTENS: &str = "0A";
    table.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = words.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16).ok()? == port && *words.get(3)? == LISTENS;
        is_it.then(|| PathBuf::from(format!("socket:[{}]", words.get(9).copied().unwrap_or_default())))
    })
}

/// Whether a process has one of these sockets. Of somebody else's nobody is told.
fn has_one_of(process: &Path, sockets: &[PathBuf]) -> bool {
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    open.any(|link| sockets.contains(&link))
}

fn in_words(process: &Path) -> String {
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let place =
        fs::read_link(process.join("cwd")).map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
    format!("process {pid} ({}{place})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_port_where_it_listens() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2483 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0\n\
             1: 0100007F:2484 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0\n\
             2: 0100007F:9C40 0100007F:2483 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0\n";
        let found = |port| listening(table, port).collect::<Vec<_>>();
        assert_eq!(found(9_347), [PathBuf::from("socket:[4711]")]);
        assert!(found(40_000).is_empty(), "that one is connected");
    }

    #[test]
    fn whoever_holds_a_port_is_named() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let said = holder(held.local_addr().unwrap().port());
        assert!(said.starts_with(&format!("process {} (", std::process::id())), "{said}");
        let here = std::env::current_dir().unwrap();
        assert!(said.ends_with(&format!(" in {})", here.display())), "{said}");
    }
}
