//! One setting, and a section of them.

use crate::Kind;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name: in the file, and, in other letters, in the environment and among the flags.
    pub name: &'static str,
    /// What its value may be, and how it is written.
    pub kind: Kind,
    /// The value if nobody sets one, as a person would write it.
    pub default: &'static str,
    /// What it does, with the line breaks of the source.
    pub(crate) help: &'static str,
}

impl Key {
    /// What it does, in a sentence or two.
    pub fn help(&self) -> String {
        in_one_line(self.help)
    }

    /// Its flag: `--data-dir`.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// Its variable in the environment: `WEIR_DATA_DIR`.
    pub fn variable(&self) -> String {
        format!("{}{}", crate::environment::PREFIX, self.name.to_uppercase())
    }
}

/// Settings that belong together: what one kind of service, or every process, needs.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What it is about: "broker".
    pub title: &'static str,
    pub(crate) about: &'static str,
    /// Its settings, in the order in which they are read best.
    pub keys: &'static [Key],
}

impl Section {
    /// What it is about, in a sentence.
    pub fn about(&self) -> String {
        in_one_line(self.about)
    }
}

/// A doc comment's lines as one.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
