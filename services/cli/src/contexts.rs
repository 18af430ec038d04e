//! Servers by name, kept in `~/.config/weir/contexts.toml`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use weir_types::nearest;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// All of them.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `HOST:PORT`.
    pub server: String,
}

impl Contexts {
    /// Reads the file; one that is not there is empty.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                Error::Usage(format!("{} is not a file of contexts: {}", path.display(), error.message()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Io { what: format!("cannot read {}", path.display()), source }),
        }
    }

    /// Writes the file: whole, or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::Io { what: format!("cannot write {}", path.display()), source };
        let text = toml::to_string(self).map_err(|error| Error::Failed(error.to_string()))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        fs::write(&beside, text).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)
    }

    /// One of them by name.
    pub(crate) fn get(&self, name: &str) -> Result<&Context> {
        self.contexts.get(name).ok_or_else(|| {
            let hint = match nearest(name, self.contexts.keys().map(String::as_str)) {
                Some(near) => format!("; did you mean \"{near}\"?"),
                None => String::new(),
            };
            Error::NotFound(format!("there is no context \"{name}\"{hint} (weir context list)"))
        })
    }
}

/// Where the file is: named outright, else in the user's configuration folder.
pub(crate) fn path(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("weir").join("contexts.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_in_the_users_configuration_folder() {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/a"));
        assert_eq!(path(None, home), Some(PathBuf::from("/home/a/.config/weir/contexts.toml")));
        let xdg = |name: &str| (name == "XDG_CONFIG_HOME").then(|| OsString::from("/etc/x"));
        assert_eq!(path(None, xdg), Some(PathBuf::from("/etc/x/weir/contexts.toml")));
        assert_eq!(path(Some(Path::new("/f")), home), Some(PathBuf::from("/f")));
        assert_eq!(path(None, |_| None), None);
    }

    #[test]
    fn what_is_saved_is_loaded_and_a_missing_file_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/contexts.toml");
        assert_eq!(Contexts::load(&file).unwrap(), Contexts::default());
        let mut contexts = Contexts { current: Some("prod".to_owned()), ..Contexts::default() };
        contexts.contexts.insert("prod".to_owned(), Context { server: "h:1".to_owned() });
        contexts.save(&file).unwrap();
        assert_eq!(Contexts::load(&file).unwrap(), contexts);
    }

    #[test]
    fn a_broken_file_and_an_unknown_name_say_which() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("contexts.toml");
        fs::write(&file, "curent = 1").unwrap();
        let error = Contexts::load(&file).unwrap_err();
        assert!(error.to_string().contains("contexts.toml"), "{error}");
        let mut contexts = Contexts::default();
        contexts.contexts.insert("prod".to_owned(), Context { server: "h:1".to_owned() });
        let error = contexts.get("prdo").unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("did you mean \"prod\"?"), "{error}");
    }
}
