//! Prints docs/settings.md.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

fn main() {
    print!("{}", weir_metadata::settings::reference());
}
