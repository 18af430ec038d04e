//! What is written in the sources, seen without comments and string literals.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The words (identifiers, keywords, numbers) of Rust source, each with its line, counted from 1. Comments
/// (nested ones too), strings (raw ones too) and character literals are left out.
#[must_use]
pub fn words(source: &str) -> Vec<(usize, String)> {
    let mut scanner = Scanner { rest: source, line: 1 };
    let mut words = Vec::new();
    while let Some(c) = scanner.rest.chars().next() {
        if scanner.rest.starts_with("//") {
            scanner.skip(scanner.rest.find('\n').unwrap_or(scanner.rest.len()));
        } else if scanner.rest.starts_with("/*") {
            scanner.block_comment();
        } else if c == '"' {
            scanner.string();
        } else if c == '\'' {
            scanner.quote();
        } else if c.is_alphanumeric() || c == '_' {
            let word = take_word(scanner.rest);
            if ["r", "br", "cr"].contains(&word) && scanner.raw_string(word.len()) {
                continue;
            }
            words.push((scanner.line, word.to_owned()));
            scanner.skip(word.len());
        } else {
            scanner.skip(c.len_utf8());
        }
    }
    words
}

/// Uses of `unsafe`, and attempts to allow it, outside the folders in `exempt`: one sentence each.
///
/// # Errors
/// If a file cannot be read.
pub fn unsafe_outside(root: &Path, exempt: &[&str]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for top in ["crates", "services", "bench", "simulation", "model", "tests", "xtask", "clients"] {
        each_rust_file(&root.join(top), &mut |path| {
            let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
            if !exempt.iter().any(|folder| shown.starts_with(folder)) {
                let text = fs::read_to_string(path).with_context(|| shown.clone())?;
                wrong.extend(
                    unsafe_in(&text).into_iter().map(|(line, what)| format!("{shown}:{line}: {what}")),
                );
            }
            Ok(())
        })?;
    }
    Ok(wrong)
}

/// Who may come to sockets and files past the `Os`, and why: the rooms of sockets and disks themselves, and programs' own
/// edges, where nothing is simulated. Tests may, too.
pub const OWN_DOORS: &[(&str, &str)] = &[
    ("crates/io/src/", "the disk"),
    ("crates/runtime/src/net.rs", "the sockets"),
    ("crates/runtime/src/process/", "what the system says of itself"),
    ("crates/runtime/src/real.rs", "what the system says of itself"),
    ("crates/config/src/load.rs", "a user's own file, read before anything runs"),
    ("crates/process/src/flags.rs", "what whoever starts a process has opened for it"),
    ("crates/load/src/", "measures real servers on real machines"),
    ("services/cli/src/", "users' files and terminals"),
];

/// The product's uses of sockets and files outside of the files and folders in `exempt`: one sentence each, and one
/// for each exemption that nothing needs.
///
/// # Errors
/// If a file cannot be read.
pub fn past_the_door(root: &Path, exempt: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut needed = BTreeSet::new();
    for top in ["crates", "services"] {
        each_rust_file(&root.join(top), &mut |path| {
            let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
            if shown.split('/').nth(2) != Some("src") {
                return Ok(());
            }
            let text = fs::read_to_string(path).with_context(|| shown.clone())?;
            let found = doors_in(&text);
            match exempt.iter().find(|(place, _)| shown.starts_with(place)) {
                Some((place, _)) if !found.is_empty() => drop(needed.insert(*place)),
                Some(_) => {}
                None => wrong.extend(found.into_iter().map(|(line, what)| format!("{shown}:{line}: {what}"))),
            }
            Ok(())
        })?;
    }
    let idle = exempt.iter().filter(|(place, _)| !needed.contains(place));
    wrong.extend(idle.map(|(place, _)| format!("{place} has a door of its own and does not use it")));
    Ok(wrong)
}

/// The lines of one file, its tests left out, that speak of the system's sockets or files.
#[must_use]
pub fn doors_in(source: &str) -> Vec<(usize, String)> {
    let product = source.split("#[cfg(test)]\nmod tests").next().unwrap_or(source);
    let found = words(product).into_iter().filter_map(|(line, word)| match word.as_str() {
        "fs" => Some((line, "files are opened through Os::disk".to_owned())),
        "TcpListener" | "TcpSocket" | "TcpStream" | "UdpSocket" | "UnixDatagram" | "UnixListener"
        | "UnixStream" => {
            Some((line, format!("{word}: sockets are opened through Os::listen and Os::connect")))
        }
        _ => None,
    });
    found.collect()
}

/// The lines of one file that use or allow unsafe code.
#[must_use]
pub fn unsafe_in(source: &str) -> Vec<(usize, String)> {
    let found = words(source).into_iter().filter_map(|(line, word)| match word.as_str() {
        "unsafe" => Some((line, "unsafe code belongs in crates/io alone".to_owned())),
        "unsafe_code" => Some((line, "the unsafe_code lint is set in one place, for all".to_owned())),
        _ => None,
    });
    found.collect()
}

fn each_rust_file(folder: &Path, visit: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let skipped = path.file_name().is_some_and(|name| name == "node_modules" || name == "target");
        if path.is_dir() && !skipped {
            each_rust_file(&path, visit)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path)?;
        }
    }
    Ok(())
}

fn take_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end).0
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl Scanner<'_> {
    fn skip(&mut self, bytes: usize) {
        let (over, rest) = self.rest.split_at(bytes);
        self.line += over.matches('\n').count();
        self.rest = rest;
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else if let Some(c) = self.rest.chars().next() {
                self.skip(c.len_utf8());
            }
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// At an opening double quote: over the literal, escapes included.
    fn string(&mut self) {
        self.skip(1);
        while let Some(c) = self.rest.chars().next() {
            self.skip(c.len_utf8());
            match c {
                '"' => return,
                '\\' => self.skip(self.rest.chars().next().map_or(0, char::len_utf8)),
                _ => {}
            }
        }
    }

    /// At `r`, `br` or `cr`: over the raw string, if this is one.
    fn raw_string(&mut self, prefix: usize) -> bool {
        let after = self.rest.split_at(prefix).1;
        let hashes = after.len() - after.trim_start_matches('#').len();
        if !after.split_at(hashes).1.starts_with('"') {
            return false;
        }
        self.skip(prefix + hashes + 1);
        let close = format!("\"{}", "#".repeat(hashes));
        self.skip(self.rest.find(&close).map_or(self.rest.len(), |at| at + close.len()));
        true
    }

    /// At a single quote: over a character literal, or only over the quote of a lifetime.
    fn quote(&mut self) {
        self.skip(1);
        let mut chars = self.rest.chars();
        match (chars.next(), chars.next()) {
            (Some('\\'), Some(escaped)) => {
                self.skip(1 + escaped.len_utf8());
                self.skip(self.rest.find('\'').map_or(self.rest.len(), |at| at + 1));
            }
            (Some(c), Some('\'')) => self.skip(c.len_utf8() + 1),
            _ => {}
        }
    }
}
