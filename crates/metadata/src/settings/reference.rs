//! docs/settings.md, written from the tables. `cargo run -p weir-metadata --example settings` prints it; a test
//! holds the two together.

use std::fmt::Write;

use crate::settings::{CLUSTER_KEYS, Key, TOPIC_KEYS};

const HEAD: &str = "\
# Settings of topics and of the cluster

<!-- Written by `cargo run -p weir-metadata --example settings`; edit crates/metadata/src/settings instead. -->

They are set while the cluster runs, and decided by the controller. What a process is told when it starts stands in
[configuration](configuration.md).

A topic's value is what was set on the topic; else what was set for the cluster; else the default. Values are written as
people write them (`7d`, `1GiB`, `unlimited`) and shown as plain numbers in the unit of the setting. A name that does not
exist is refused with the one that was probably meant.
";

/// The whole page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    table(
        &mut page,
        "Of topics",
        "Set on a topic, or for the cluster as the value of topics that do not set it.",
        TOPIC_KEYS,
    );
    table(&mut page, "Of the cluster", "Set for the cluster alone.", CLUSTER_KEYS);
    page
}

fn table(page: &mut String, title: &str, about: &str, keys: &[Key]) {
    // Writing to a String does not fail.
    let _ = write!(page, "\n## {title}\n{about}\n\n");
    page.push_str("| setting | default | may be | what it does |\n|---|---|---|---|\n");
    for key in keys {
        let _ = writeln!(page, "| `{}` | `{}` | {} | {} |", key.name, key.default, key.range(), said(key));
    }
}

fn said(key: &Key) -> String {
    let mut said = key.help.to_owned();
    if key.fixed_at_creation {
        said.push_str(" Decided when the topic is created; never changes.");
    } else if key.copied_at_creation {
        said.push_str(" A topic keeps the cluster's value of the moment it was created.");
    }
    if !key.not_yet.is_empty() {
        let words: Vec<String> = key.not_yet.iter().map(|word| format!("`{word}`")).collect();
        let _ = write!(said, " Not built yet: {}.", words.join(", "));
    }
    said
}
