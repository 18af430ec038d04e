//! `weir config set` and `weir config unset`: one call, two spellings. Asks where topics lose records by it, as
//! `weir topic set` does.

use clap::Args;
use weir_proto::v1::{ConfigValue, Topic, UpdateConfigsRequest};

use super::shown;
use crate::commands::topic::{list, parse_setting, set::keeps_less};
use crate::error::{Error, Result, ServerError};
use crate::output::{self, View};
use crate::prompt;
use crate::session::Session;
use crate::units;

/// How many topics a question names; the others are counted.
const NAMES_MAX: usize = 5;

/// Change settings of the cluster
#[derive(Debug, Args)]
#[command(after_help = "\
A topic's setting, set here, is the value of all topics that do not set it themselves.

Examples:
  $ weir config set retention_ms=14d
  $ weir config set default_partitions=4 --dry-run
  $ weir config set retention_ms=unlimited")]
pub(crate) struct Set {
    /// Settings, such as retention_ms=14d
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Refused: a broker's settings are its process's
    #[arg(long, hide = true, value_name = "ID")]
    broker: Option<i32>,
}

/// Take settings back to what they were before anybody set them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir config unset retention_ms
  $ weir config unset retention_ms --dry-run
  $ weir config unset retention_ms retention_bytes")]
pub(crate) struct Unset {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Refused: a broker's settings are its process's
    #[arg(long, hide = true, value_name = "ID")]
    broker: Option<i32>,
}

impl Set {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        of_the_cluster(self.broker)?;
        let set_config = self.settings.into_iter().collect();
        change(session, UpdateConfigsRequest { set_config, ..Default::default() }).await
    }
}

impl Unset {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        of_the_cluster(self.broker)?;
        change(session, UpdateConfigsRequest { unset_config: self.names, ..Default::default() }).await
    }
}

/// One broker's settings cannot be changed from here, and whoever tries is told where.
fn of_the_cluster(broker: Option<i32>) -> Result<()> {
    let Some(id) = broker else { return Ok(()) };
    Err(Error::Usage(format!(
        "the settings of broker {id} are those of its process: write them in the file it starts with, or set them by \
         variable or flag, and start it again (weir config list --broker {id} shows them); without --broker this \
         changes the cluster's"
    )))
}

async fn change(session: &Session, mut request: UpdateConfigsRequest) -> Result<()> {
    let mut client = session.admin().await?;
    request.validate_only = true;
    let checked = session.read(client.update_configs(session.request(request.clone()))).await;
    let mut answer = checked.map_err(|error| of_the_process(error, &request))?;
    if !session.dry_run() {
        let less = less_kept(&answer.before, &answer.after);
        if !less.is_empty() {
            let topics = list::all(session, false).await?;
            if let Some(question) = question(&less, &topics) {
                prompt::confirm(session, &question).await?;
            }
        }
        request.validate_only = false;
        request.request_id = session.request_id();
        // What was shown is what is changed: nobody else's change in between is overwritten.
        let shown = std::mem::take(&mut answer.before).into_iter();
        request.expected_config = shown.map(|setting| (setting.name, setting.value)).collect();
        answer = session.change(client.update_configs(session.request(request))).await?;
    }
    let mut view = View::default();
    for after in &answer.after {
        let before = answer.before.iter().find(|setting| setting.name == after.name);
        view.line(line(before, after));
        view.names.push(after.name.clone());
        view.objects.push(output::proto_json(after, "weir.v1.ConfigValue"));
    }
    if session.dry_run() {
        view.line("dry run: nothing changed");
    }
    session.print(&view)
}

/// The settings by which less is kept than before, with their lines.
fn less_kept<'a>(before: &[ConfigValue], after: &'a [ConfigValue]) -> Vec<(&'a str, String)> {
    let mut less = Vec::new();
    for after in after {
        let before = before.iter().find(|setting| setting.name == after.name);
        if keeps_less(&after.name, before.map(|before| before.value.as_str()), Some(&after.value)) {
            less.push((after.name.as_str(), line(before, after)));
        }
    }
    less
}

/// What is asked before topics lose records; nothing where every topic has settings of its own.
fn question(less: &[(&str, String)], topics: &[Topic]) -> Option<String> {
    let mut questions = Vec::new();
    for (name, line) in less {
        let names: Vec<&str> = topics
            .iter()
            .filter(|topic| !topic.config.contains_key(*name))
            .map(|topic| topic.name.as_str())
            .collect();
        if names.is_empty() {
            continue;
        }
        let (shown, more) = names.split_at(names.len().min(NAMES_MAX));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let (count, shown) = (units::counted(names.len() as u64, "topic"), shown.join(", "));
        questions.push(format!(
            "{line}: less is kept than before in {count} ({shown}{more}), and the rest is deleted"
        ));
    }
    (!questions.is_empty()).then(|| format!("{}.", questions.join("; ")))
}

/// A refusal of what only a process can be told is said with the places where that is done.
fn of_the_process(error: Error, request: &UpdateConfigsRequest) -> Error {
    let asked = request.set_config.keys().chain(&request.unset_config);
    let mut keys = asked.filter_map(|name| weir_config::all_keys().find(|key| key.name == name));
    let refused = |server: &ServerError, key: &weir_config::Key| {
        server.failure.message.contains(&format!("\"{}\"", key.name))
    };
    match (&error, keys.next()) {
        (Error::Server(server), Some(key)) if refused(server, key) => Error::Usage(format!(
            "{} is a setting of the process, not of the cluster: write it in the file it starts with ({} = …), \
                 or set the variable {} or the flag {}, and start it again",
            key.name,
            key.name,
            key.variable(),
            key.flag()
        )),
        _ => error,
    }
}

fn line(before: Option<&ConfigValue>, after: &ConfigValue) -> String {
    let old = before.map_or("(unset)".to_owned(), |before| shown(before, &before.value));
    let restart = if after.needs_restart { "  after a restart" } else { "" };
    format!("{} {old} -> {}{restart}", after.name, shown(after, &after.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str) -> ConfigValue {
        ConfigValue { name: name.into(), value: value.into(), unit: "ms".into(), ..ConfigValue::default() }
    }

    fn topic(name: &str, own: &[&str]) -> Topic {
        let config = own.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        Topic { name: name.into(), config, ..Topic::default() }
    }

    #[test]
    fn who_keeps_less_is_asked_with_the_topics_it_touches() {
        let before = [setting("retention_ms", "604800000"), setting("default_partitions", "4")];
        let after = [setting("retention_ms", "1000"), setting("default_partitions", "1")];
        let less = less_kept(&before, &after);
        assert_eq!(less, [("retention_ms", "retention_ms 7d -> 1s".to_owned())]);
        let own = topic("own", &["retention_ms"]);
        assert_eq!(
            question(&less, &[topic("a", &[]), own.clone(), topic("b", &["compression"])]).unwrap(),
            "retention_ms 7d -> 1s: less is kept than before in 2 topics (a, b), and the rest is deleted."
        );
        assert_eq!(question(&less, &[own]), None, "nobody is touched");
        let many: Vec<_> = (0..7).map(|i| topic(&format!("t{i}"), &[])).collect();
        let words = question(&less, &many).unwrap();
        assert!(words.contains("7 topics (t0, t1, t2, t3, t4 and 2 more)"), "{words}");
    }

    #[test]
    fn what_only_a_process_can_be_told_is_sent_there() {
        let request = |name: &str| UpdateConfigsRequest {
            set_config: [(name.to_owned(), "x".to_owned())].into(),
            ..UpdateConfigsRequest::default()
        };
        let refused = |name: &str| {
            let words = format!("there is no setting \"{name}\"");
            Error::of_problem(&weir_rpc::Problem::new(weir_proto::v1::ErrorReason::ConfigUnknown, words))
        };
        let words = of_the_process(refused("listen"), &request("listen")).to_string();
        for part in ["listen is a setting of the process", "WEIR_LISTEN", "--listen"] {
            assert!(words.contains(part), "{words}");
        }
        assert_eq!(
            of_the_process(refused("lisen"), &request("lisen")).to_string(),
            "there is no setting \"lisen\""
        );
    }

    #[test]
    fn keeping_more_is_asked_of_nobody() {
        let (short, ever) = ([setting("retention_ms", "1000")], [setting("retention_ms", "-1")]);
        assert!(less_kept(&short, &ever).is_empty());
        assert_eq!(less_kept(&ever, &short).len(), 1);
    }
}
