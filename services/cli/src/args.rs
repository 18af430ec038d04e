//! The shape of the command line: the flags that every command has, and the list of commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::output::Format;
use crate::units;

/// A durable, partitioned log you talk to over gRPC
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    infer_long_args = false,
    disable_help_subcommand = true,
    disable_help_flag = true,
    max_term_width = 100,
    after_help = "\
-o json is an object a line, on stdout: the API's names in camelCase, every field there (null where
there is none), numbers as numbers, sizes in bytes, times in ms, enums without their prefix
(NO_LEADER); what failed is an object on stderr. Values of settings are strings.
Records are named flights/3@1042 (topic/partition@offset), in and out.
Exit codes: 0 done, 1 failed and not applied, 2 usage, 3 not found, 4 denied, 5 unreachable or
timed out, 6 maybe or partly applied, 130 Ctrl-C; weir status --check, doctor: 1 if something is not well.

Examples:
  $ weir topic create greetings
  $ echo hello | weir produce greetings
  $ weir consume greetings --until end"
)]
pub(crate) struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Start,
}

/// The flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The context to use instead of the current one (weir context list)
    #[arg(short = 'c', long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The server; of a cluster several, separated by commas [default: WEIR_SERVER, else the context's, else localhost:9347]
    #[arg(short = 's', long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// How results are shown: table, wide, json (an object a line, the API's names), yaml, name
    #[arg(short = 'o', long, global = true, value_enum, value_name = "FORM", hide_possible_values = true)]
    pub(crate) output: Option<Format>,
    /// Show again every two seconds, until Ctrl-C (commands that list or describe)
    #[arg(short = 'w', long, global = true)]
    pub(crate) watch: bool,
    /// How long to wait for an answer [default: 30s; produce goes on trying for 2m]
    #[arg(long, global = true, value_name = "TIME", value_parser = units::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Do not ask
    #[arg(short = 'y', long, global = true)]
    pub(crate) yes: bool,
    /// Show what would change, change nothing (refused where that cannot be shown)
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Say more on stderr: which server, and why
    #[arg(short = 'v', long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print help
    #[arg(short = 'h', long, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    /// The file with the contexts
    #[arg(long, global = true, hide = true, env = "WEIR_CONTEXTS", value_name = "FILE")]
    pub(crate) contexts_file: Option<PathBuf>,
}

/// A server, or something that is asked of one.
#[derive(Debug, Subcommand)]
pub(crate) enum Start {
    /// A whole Weir in one process
    Standalone(Box<commands::standalone::Standalone>),
    /// Every other command.
    #[command(flatten)]
    Command(Command),
}

impl Start {
    /// Why it has no `--dry-run`, where it changes something and cannot show it beforehand. What only reads takes the
    /// flag and has nothing to do for it.
    pub(crate) fn refuses_dry_run(&self) -> Option<String> {
        match self {
            Self::Standalone(_) => Some(
                "standalone starts a server, so it has no --dry-run; --print-config shows what it would start with"
                    .to_owned(),
            ),
            Self::Command(Command::Dev(dev)) => dev.refuses_dry_run(),
            Self::Command(Command::Bench(bench)) => bench.refuses_dry_run(),
            Self::Command(Command::Call(call)) => call.refuses_dry_run(),
            Self::Command(_) => None,
        }
    }
}

/// Every command but the servers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A local cluster of real processes
    Dev(commands::dev::Dev),
    /// Write records: lines, CSV or JSON in
    Produce(commands::produce::Produce),
    /// Read records
    #[command(alias = "cat")]
    Consume(commands::consume::Consume),
    /// Create, change and remove topics
    #[command(alias = "topics")]
    Topic(commands::topic::Topic),
    /// Partitions: leaders, ends, sizes
    Partition(commands::partition::Partition),
    /// Brokers
    #[command(alias = "brokers")]
    Broker(commands::broker::Broker),
    /// Controllers: who votes, who leads, who is taken out
    #[command(alias = "controllers")]
    Controller(commands::controller::Controller),
    /// The cluster as a whole: making an upgrade final
    Cluster(commands::cluster::Cluster),
    /// The health of the cluster at a glance
    Status(commands::status::Status),
    /// Settings of the cluster and of brokers, and where each value comes from
    Config(commands::config::Config),
    /// Check the way to the server, step by step
    Doctor(commands::doctor::Doctor),
    /// How fast this server is, from here
    #[command(alias = "perf")]
    Bench(commands::bench::Bench),
    /// What an error reason means and what to do
    #[command(alias = "error")]
    Errors(commands::errors::Errors),
    /// Call any method with JSON
    Call(commands::call::Call),
    /// Servers by name
    #[command(alias = "contexts")]
    Context(commands::context::Context),
    /// Look at log files without a server
    Segment(commands::segment::Segment),
    /// Ask the server whether it is well (for probes)
    Health(commands::health::Health),
    /// Completion for a shell
    Completion(commands::completion::Completion),
    /// The version of this program, and of the server
    Version(commands::version::Version),
}

/// The whole command tree, for completion and tests.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Whether a command line that was not understood asks for JSON.
pub(crate) fn wants_json(words: &[String]) -> bool {
    let one = |word: &String| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json");
    let two = |pair: &[String]| matches!(pair, [flag, form] if matches!(flag.as_str(), "-o" | "--output") && form == "json");
    words.iter().any(one) || words.windows(2).any(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command makes of `--dry-run`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum DryRun {
        /// It asks the session, and changes nothing.
        Honoured,
        /// It changes nothing anyway.
        Reads,
        Refused,
    }

    /// Every command without commands of its own, and what it makes of `--dry-run`.
    const DRY_RUNS: &[(&str, DryRun)] = &[
        ("standalone", DryRun::Refused),
        ("dev up", DryRun::Refused),
        ("dev down", DryRun::Refused),
        ("dev status", DryRun::Reads),
        ("dev kill broker-1", DryRun::Refused),
        ("dev pause broker-1", DryRun::Refused),
        ("dev resume broker-1", DryRun::Refused),
        ("dev start broker-1", DryRun::Refused),
        ("produce t", DryRun::Honoured),
        ("consume t", DryRun::Reads),
        ("topic create t", DryRun::Honoured),
        ("topic list", DryRun::Reads),
        ("topic describe t", DryRun::Reads),
        ("topic set t retention_ms=1d", DryRun::Honoured),
        ("topic trim t --before end", DryRun::Honoured),
        ("topic delete t", DryRun::Honoured),
        ("partition list", DryRun::Reads),
        ("partition describe t", DryRun::Reads),
        ("broker list", DryRun::Reads),
        ("broker describe 1", DryRun::Reads),
        ("status", DryRun::Reads),
        ("config list", DryRun::Reads),
        ("config get retention_ms", DryRun::Reads),
        ("config set retention_ms=1d", DryRun::Honoured),
        ("config unset retention_ms", DryRun::Honoured),
        ("doctor", DryRun::Reads),
        ("bench produce", DryRun::Refused),
        ("bench consume", DryRun::Reads),
        ("bench latency", DryRun::Refused),
        ("errors NO_LEADER", DryRun::Reads),
        ("call TopicService/CreateTopic", DryRun::Refused),
        ("call TopicService/UpdateTopic", DryRun::Refused),
        ("call TopicService/DeleteTopic", DryRun::Refused),
        ("call TopicService/DeleteRecords", DryRun::Refused),
        ("call AdminService/UpdateConfigs", DryRun::Refused),
        ("call ProducerService/Produce", DryRun::Refused),
        ("call ProducerService/ProduceStream", DryRun::Refused),
        ("call ProducerService/OpenProducer", DryRun::Refused),
        ("call ProducerService/GetAppendOutcome", DryRun::Refused),
        ("call MetadataService/GetServerInfo", DryRun::Reads),
        ("call TopicService/ListTopics", DryRun::Reads),
        ("call list", DryRun::Reads),
        ("call describe Topic", DryRun::Reads),
        ("partition elect flights/3", DryRun::Honoured),
        ("broker remove 4", DryRun::Honoured),
        ("broker trust 1", DryRun::Honoured),
        ("controller list", DryRun::Reads),
        ("controller remove 14", DryRun::Honoured),
        ("controller recover .", DryRun::Honoured),
        ("cluster finalize", DryRun::Honoured),
        ("context add here localhost:9347", DryRun::Honoured),
        ("context use here", DryRun::Honoured),
        ("context list", DryRun::Reads),
        ("context remove here", DryRun::Honoured),
        ("segment dump .", DryRun::Reads),
        ("segment verify .", DryRun::Reads),
        ("health", DryRun::Reads),
        ("completion bash", DryRun::Reads),
        ("version", DryRun::Reads),
    ];

    /// The commands without commands of their own, in words.
    fn leaves(of: &clap::Command, name: &str, out: &mut Vec<String>) {
        for below in of.get_subcommands() {
            leaves(below, format!("{name} {}", below.get_name()).trim_start(), out);
        }
        if !of.has_subcommands() {
            out.push(name.to_owned());
        }
    }

    fn parsed(line: &str) -> Start {
        let words = std::iter::once("weir").chain(line.split(' ')).chain(["--dry-run"]);
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).command
    }

    #[test]
    fn every_command_honours_a_dry_run_or_refuses_it_or_only_reads() {
        let mut all = Vec::new();
        leaves(&command(), "", &mut all);
        for leaf in all {
            let known = DRY_RUNS.iter().any(|(line, _)| format!("{line} ").starts_with(&format!("{leaf} ")));
            assert!(known, "what does weir {leaf} make of --dry-run?");
        }
        for (line, makes) in DRY_RUNS {
            let refused = parsed(line).refuses_dry_run();
            assert_eq!(refused.is_some(), *makes == DryRun::Refused, "{line}: {refused:?}");
        }
    }

    #[test]
    fn a_refused_dry_run_is_a_mistake_of_usage_and_says_what_to_do() {
        for (line, hint) in [
            ("call TopicService/DeleteTopic {\"name\":\"x\"}", "put \"validateOnly\": true into the request"),
            ("call TopicService/DeleteRecords", "DeleteRecordsRequest has no validateOnly"),
            ("bench latency", "bench consume"),
            ("standalone", "--print-config"),
            ("dev kill broker-1", "dev status"),
        ] {
            let words = parsed(line).refuses_dry_run().unwrap();
            assert!(words.contains("--dry-run") && words.contains(hint), "{line}: {words}");
            // No server is asked: there is none.
            let all =
                std::iter::once("weir").chain(line.split(' ')).chain(["--dry-run", "-s", "localhost:1"]);
            assert_eq!(crate::run(all.map(Into::into).collect()), crate::error::USAGE, "{line}");
        }
    }
}
