//! The command line of a program that serves: where its configuration comes from, every setting of its role as a flag,
//! and who is told when it serves.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use weir_config::{Key, Loaded, Loader, Role};

use crate::Error;

/// What was asked of a role on the command line.
#[derive(Clone, Debug)]
pub struct Flags<R> {
    config: Option<PathBuf>,
    print_config: bool,
    ready_fd: Option<u32>,
    settings: Vec<(String, String)>,
    _role: PhantomData<fn() -> R>,
}

/// Where the line goes that says that it serves. Whoever started the process holds the other end.
#[derive(Debug)]
pub struct ReadyFile(Option<File>);

impl<R: Role> Flags<R> {
    /// Opens what must be told when it serves. To be called before this process opens anything, which could get the
    /// number.
    ///
    /// # Errors
    /// [`Error::Usage`]: nobody has opened it.
    pub fn ready_file(&self) -> Result<ReadyFile, Error> {
        self.ready_fd.map(ready_file).transpose().map(ReadyFile)
    }

    /// The configuration: of `loader`, which has what the program itself adds to the file and the environment, and of
    /// the flags. `None`: it was only to be printed, which is done.
    ///
    /// # Errors
    /// [`Error::Usage`]: it makes no sense.
    pub fn load(&self, adds: impl FnOnce(Loader) -> Loader) -> Result<Option<Loaded<R>>, Error> {
        let usage = |error: weir_config::Error| Error::Usage(error.to_string());
        let loader = adds(Loader::process(self.config.as_deref()).map_err(usage)?);
        let flags = self.settings.iter();
        let loader = flags.fold(loader, |loader, (flag, value)| loader.flag(flag, value));
        let loaded = loader.load::<R>().map_err(usage)?;
        if !self.print_config {
            return Ok(Some(loaded));
        }
        write!(io::stdout().lock(), "{loaded}").map_err(|_| Error::OutputClosed)?;
        Ok(None)
    }
}

/// The keys that a person may set on a role.
fn keys<R: Role>() -> impl Iterator<Item = &'static Key> {
    let decided = |name: &str| R::DECIDED.iter().any(|(known, _)| *known == name);
    R::SECTIONS.iter().flat_map(|section| section.keys).filter(move |key| !decided(key.name))
}

impl<R: Role> Args for Flags<R> {
    fn augment_args(command: Command) -> Command {
        let own = command
            .arg(
                Arg::new("ready_fd")
                    .long("ready-fd")
                    .value_name("FD")
                    .value_parser(clap::value_parser!(u32))
                    .help(
                        "When it serves, write one line of JSON with the addresses to this file descriptor",
                    ),
            )
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("The configuration file [default: WEIR_CONFIG, else ./weir.toml if it is there]"),
            )
            .arg(
                Arg::new("print_config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("Print the configuration in force, with where each value comes from, and end"),
            );
        keys::<R>().fold(own, |command, key| {
            let default = if key.default.is_empty() { "none" } else { key.default };
            command.arg(
                Arg::new(key.name)
                    .long(key.flag().trim_start_matches("--").to_owned())
                    .value_name("VALUE")
                    .allow_hyphen_values(true)
                    .help(format!("{} [default: {default}]", key.help()))
                    .help_heading("Settings"),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<R: Role> FromArgMatches for Flags<R> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let settings = keys::<R>()
            .filter_map(|key| Some((key.flag(), matches.get_one::<String>(key.name)?.clone())))
            .collect();
        Ok(Self {
            config: matches.get_one::<PathBuf>("config").cloned(),
            print_config: matches.get_flag("print_config"),
            ready_fd: matches.get_one::<u32>("ready_fd").copied(),
            settings,
            _role: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The file behind a descriptor that whoever started this process has given it.
fn ready_file(fd: u32) -> Result<File, Error> {
    OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}")).map_err(|error| {
        Error::Usage(format!(
            "--ready-fd {fd}: this descriptor is not open for writing ({error}); open it first, as in: weir standalone \
             --ready-fd {fd} {fd}>ready.json"
        ))
    })
}

impl ReadyFile {
    /// Says that it serves, once, with what whoever started it may want to know.
    pub fn tell(self, what: &serde_json::Value) {
        let Some(mut file) = self.0 else { return };
        if let Err(error) = writeln!(file, "{what}") {
            tracing::error!(%error, "cannot say on --ready-fd that it serves: nobody reads there any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use weir_config::{BrokerProcess, ControllerProcess, Standalone};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program<R: Role> {
        #[command(flatten)]
        flags: Flags<R>,
    }

    fn parsed<R: Role>(words: &[&str]) -> Result<Flags<R>, clap::Error> {
        Program::<R>::try_parse_from(std::iter::once(&"weir").chain(words)).map(|program| program.flags)
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        let refused = parsed::<Standalone>(&["--ready-fd", "77777"]).unwrap().ready_file().unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--ready-fd 77777"), "{refused}");
    }

    #[test]
    fn a_role_has_the_flags_of_its_settings_and_no_others() {
        let flags = parsed::<BrokerProcess>(&["--rack", "a", "--data-dir", "-x"]).unwrap();
        let loaded = flags.load(|_| Loader::new()).unwrap().unwrap();
        assert_eq!(loaded.config.broker.rack, "a");
        assert_eq!(loaded.config.common.data_dir, PathBuf::from("-x"));
        parsed::<BrokerProcess>(&["--bootstrap", "true"]).unwrap_err();
        parsed::<ControllerProcess>(&["--rack", "a"]).unwrap_err();
        parsed::<ControllerProcess>(&["--bootstrap", "true"]).unwrap();
        // It has decided.
        parsed::<Standalone>(&["--bootstrap", "true"]).unwrap_err();
    }

    #[test]
    fn what_the_program_adds_gives_way_to_the_flags() {
        let flags = parsed::<BrokerProcess>(&["--rack", "flag"]).unwrap();
        let adds = |_| Loader::new().flag("--rack", "added").flag("--wait-ms-max", "40s");
        let loaded = flags.load(adds).unwrap().unwrap();
        assert_eq!(loaded.config.broker.rack, "flag");
        assert_eq!(loaded.config.broker.wait_ms_max.as_secs(), 40);
    }
}
