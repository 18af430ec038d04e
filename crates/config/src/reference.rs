//! docs/configuration.md, written from the sections. `cargo run -p weir-config --example reference` prints it; a test
//! holds the two together.

use std::fmt::Write;

use crate::{Key, Role, Standalone};

const HEAD: &str = "\
# Configuration

<!-- Written by `cargo run -p weir-config --example reference`; edit crates/config instead. -->

This is what can be set of a process. [Settings of topics and of the cluster](settings.md) are set in the cluster, while it
runs: `weir topic set`, `weir config set`. What a process says of itself stands in [metrics](metrics.md).

## Where a value comes from
First to last; the first that sets it counts.

| where | how | example |
|---|---|---|
| flag | hyphens for underscores | `weir standalone --data-dir /var/lib/weir` |
| environment | `WEIR_` and capitals; empty counts as not set | `WEIR_DATA_DIR=/var/lib/weir` |
| file | TOML; `--config FILE`, else `WEIR_CONFIG`, else `weir.toml` in the working directory if there is one | `data_dir = \"/var/lib/weir\"` |
| default | the tables below | |

All settings stand at the top level of the file, and one file may serve every role: each takes what it needs. A name that
does not exist is an error that says which was probably meant, with file and line. `weir config` prints what is in force in
a running process, and where each value comes from.

## How values are written
- **Bytes**: `1048576`, `64KiB`, `16MiB`, `1GiB` (powers of 1024), `1MB`, `1GB` (powers of 1000).
- **Times**: `500ms`, `30s`, `5m`, `1h30m`, `7d`. A bare number is milliseconds.
- **Listening addresses**: an address of the machine and a port, `127.0.0.1:9347`, `[::]:9347`; `localhost:9347` is
  127.0.0.1. Port 0 takes a free one.
- **Lists**: `[\"a:1\", \"b:2\"]` in the file, `a:1,b:2` elsewhere.
";

/// The whole page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for section in Standalone::SECTIONS {
        // Writing to a String does not fail.
        let _ = write!(page, "\n## {}\n{}\n\n", capitalised(section.title), section.about());
        page.push_str("| setting | default | may be | what it does |\n|---|---|---|---|\n");
        for key in section.keys {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                key.name,
                default(key),
                key.kind.brief(),
                key.help()
            );
        }
    }
    page
}

fn default(key: &Key) -> String {
    if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
