//! Bringing together what was set where.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use crate::given::{Given, Resolved, Source, Values};
use crate::{Error, Role, all_keys, environment, file};

/// The file that is read when none is named, if it is there.
const FILE_DEFAULT: &str = "weir.toml";

/// Gathers settings; where one is set several times, the flag wins over the environment over the file.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    file: Option<(PathBuf, String)>,
    variables: Vec<(String, String)>,
    flags: Vec<(String, String)>,
}

impl Loader {
    /// Nothing is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a process starts with: its environment, and the file `path`, or the one that `WEIR_CONFIG` names, or
    /// `weir.toml` in the working directory if there is one.
    ///
    /// # Errors
    /// [`Error::Read`] for a file that was named and cannot be read.
    pub fn process(path: Option<&Path>) -> Result<Self, Error> {
        let loader = Self::new().environment(std::env::vars_os());
        let named = path
            .map(Path::to_owned)
            .or_else(|| std::env::var_os("WEIR_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        match named {
            Some(path) => loader.file(&path),
            None => match loader.clone().file(Path::new(FILE_DEFAULT)) {
                Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(loader),
                outcome => outcome,
            },
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn file(self, path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(self.text(path, text)),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// Takes `text` for the content of the file `path`.
    #[must_use]
    pub fn text(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.file = Some((path.into(), text.into()));
        self
    }

    /// Takes the variables that begin with `WEIR_`.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let text = |name: OsString| name.to_string_lossy().into_owned();
        self.variables.extend(variables.into_iter().map(|(name, value)| (text(name), text(value))));
        self
    }

    /// Takes a flag: `name` is the setting's name, or the flag's with or without its hyphens. Of several of the same
    /// name the last counts.
    #[must_use]
    pub fn flag(mut self, name: &str, text: impl Into<String>) -> Self {
        self.flags.push((name.trim_start_matches('-').replace('-', "_"), text.into()));
        self
    }

    /// Brings everything together for a role.
    ///
    /// # Errors
    /// The first thing that is wrong, whichever role it concerns: a file is for all of them.
    pub fn load<R: Role>(&self) -> Result<Loaded<R>, Error> {
        let mut given = match &self.file {
            Some((path, text)) => file::settings(path, text)?,
            None => Vec::new(),
        };
        given.extend(environment::settings(self.variables.iter().cloned())?);
        for (name, text) in &self.flags {
            let flag = |name: &str| format!("--{}", name.replace('_', "-"));
            let place = Source::Flag(flag(name));
            let Some(key) = all_keys().find(|key| key.name == name) else {
                let nearest = weir_types::nearest(name, all_keys().map(|key| key.name)).map(flag);
                return Err(Error::Unknown { name: flag(name), place, nearest });
            };
            given.push(Given { key, text: text.clone(), place });
        }

        let mut values = BTreeMap::new();
        for key in all_keys() {
            let default = Given { key, text: key.default.to_owned(), place: Source::Default };
            values.insert(key.name, default.resolve()?);
        }
        for given in &given {
            values.insert(given.key.name, given.resolve()?);
        }
        for (name, text) in R::DECIDED {
            if let Some(key) = all_keys().find(|key| key.name == *name) {
                let decided = Given { key, text: (*text).to_owned(), place: Source::Default };
                values.insert(key.name, decided.resolve()?);
            }
        }
        let values = Values(values);
        let config = R::read(&values)?;
        let shown = R::SECTIONS.iter().flat_map(|section| section.keys);
        let shown = shown.filter(|key| !R::DECIDED.iter().any(|(name, _)| *name == key.name));
        let settings = shown.filter_map(|key| values.0.get(key.name).cloned()).collect();
        Ok(Loaded { config, settings })
    }
}

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded<R> {
    /// What the role is started with.
    pub config: R,
    /// Every setting of the role with the value in force, section by section.
    pub settings: Vec<Resolved>,
}

/// A file that would set the same, with where each value comes from.
impl<R> fmt::Display for Loaded<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self
            .settings
            .iter()
            .map(|setting| {
                let mut line = String::new();
                write!(line, "{} = {}", setting.key.name, setting.value.in_toml(setting.key.kind))?;
                Ok((line, &setting.source))
            })
            .collect::<Result<_, fmt::Error>>()?;
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
        for (line, source) in lines {
            writeln!(f, "{line:width$}  # {source}")?;
        }
        Ok(())
    }
}
