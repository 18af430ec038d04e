//! Servers by name, kept in `~/.config/weir/contexts.toml`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use weir_types::nearest;

/// As many are named to whoever names one that is not there.
const NAMED: usize = 5;

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
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.map_or(1, |before| before.matches('\n').count() + 1);
                let what = error.message();
                Error::Usage(format!(
                    "{}:{line}: this is not a file of contexts: {what}; mend it, or move it away and name servers \
                     again with weir context add",
                    path.display()
                ))
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
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"? (weir context list)"),
                None if names.is_empty() => "there is none yet: weir context add NAME HOST:PORT".to_owned(),
                None if names.len() <= NAMED => format!("known: {} (weir context list)", names.join(", ")),
                None => "weir context list shows those there are".to_owned(),
            };
            // Nobody has just written it: the file is not what the commands left.
            let in_use = match self.current.as_deref() == Some(name) {
                true => ", the one that is in use (weir context use NAME chooses another)",
                false => "",
            };
            Error::NotFound(format!("there is no context \"{name}\"{in_use}; {hint}"))
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
        assert!(error.to_string().contains("contexts.toml:1: "), "{error}");
        fs::write(&file, "[contexts.a]\nserver = \"h:1\"\n\n[contexts.a]\nserver = \"h:2\"\n").unwrap();
        let error = Contexts::load(&file).unwrap_err();
        assert!(
            error.to_string().contains("contexts.toml:4: ") && error.to_string().contains("mend it"),
            "{error}"
        );
        let mut contexts = Contexts::default();
        contexts.contexts.insert("prod".to_owned(), Context { server: "h:1".to_owned() });
        let error = contexts.get("prdo").unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("did you mean \"prod\"?"), "{error}");
        let words = contexts.get("zz").unwrap_err().to_string();
        assert_eq!(words, "there is no context \"zz\"; known: prod (weir context list)");
        contexts.current = Some("zz".to_owned());
        let words = contexts.get("zz").unwrap_err().to_string();
        assert!(words.contains("the one that is in use (weir context use NAME"), "{words}");
        let words = Contexts::default().get("zz").unwrap_err().to_string();
        assert!(words.ends_with("there is none yet: weir context add NAME HOST:PORT"), "{words}");
    }
}
