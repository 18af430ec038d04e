//! What can be wrong with a configuration. Each says where it stands and what would be right.

use std::io;
use std::path::PathBuf;

use weir_types::did_you_mean;

use crate::Source;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no setting of this name.
    #[error("{place}: there is no setting \"{name}\"{}", meant(nearest.as_deref()))]
    Unknown {
        /// The name as it was written.
        name: String,
        /// Where.
        place: Source,
        /// The setting that was probably meant, as it would be written there.
        nearest: Option<String>,
    },
    /// A value that the setting cannot have.
    #[error("{place}: {key} = \"{given}\" is not {wanted}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// What was written.
        given: String,
        /// What would be understood.
        wanted: String,
        /// Where.
        place: Source,
    },
    /// Two settings that do not go together.
    #[error("{what}")]
    Conflict {
        /// Which, and what would be right.
        what: String,
    },
    /// The file is not TOML, or not of settings.
    #[error("{}:{line}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn meant(nearest: Option<&str>) -> String {
    match nearest {
        Some(_) => did_you_mean(nearest),
        None => "; docs/configuration.md lists them".to_owned(),
    }
}
