//! Every setting of the configuration as a flag, from the table that declares them.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use weir_config::{Role, Standalone};

/// The settings that were given as flags, with their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) given: Vec<(String, String)>,
}

/// The keys that a person may set on this role.
fn keys() -> impl Iterator<Item = &'static weir_config::Key> {
    let decided = |name: &str| Standalone::DECIDED.iter().any(|(known, _)| *known == name);
    Standalone::SECTIONS.iter().flat_map(|section| section.keys).filter(move |key| !decided(key.name))
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        keys().fold(command, |command, key| {
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

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = keys()
            .filter_map(|key| Some((key.flag(), matches.get_one::<String>(key.name)?.clone())))
            .collect();
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
