//! `weir produce`: lines, CSV or JSON in; one summary out.

mod send;
mod summary;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use self::send::Sender;
use self::summary::Summary;
use crate::error::{Error, MAYBE, Result};
use crate::hindered::Watch;
use crate::input::{self, Batch, Csv, Cutter, Json, Lines};
use crate::offsets;
use crate::output::View;
use crate::progress::Progress;
use crate::record_format::unescape;
use crate::reference::Reference;
use crate::session::Session;
use crate::units;

/// Write records: lines, CSV or JSON in
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a record, kept byte for byte without its line feed.
--csv takes the first row for column names; each further row is a record as it stands.
--json takes an object a line, as weir consume -f json writes it:
  {\"keyText\": \"k\", \"valueText\": \"v\", \"headers\": [{\"key\": \"h\", \"value\": \"aGk=\"}], \"timestampMs\": 0}
Records with the same key keep their order; a record that has to be sent again is written once.

Examples:
  $ echo hello | weir produce greetings
  $ echo 'UA:departed' | weir produce flights --key-separator :
  $ weir produce flights -i flights.csv --csv --key-column carrier --compression zstd")]
pub(crate) struct Produce {
    /// The topic, or one of its partitions (flights/3)
    #[arg(value_name = "TOPIC[/PARTITION]")]
    what: Reference,
    /// The file to read [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// What stands between key and value in each line, such as : or \t
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["csv", "json", "key"])]
    key_separator: Option<Separator>,
    /// The input is CSV with a header
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// The column that is the key
    #[arg(long, value_name = "NAME", requires = "csv", conflicts_with = "key")]
    key_column: Option<String>,
    /// What stands between columns
    #[arg(long, value_name = "CHARACTER", requires = "csv", default_value = ",")]
    delimiter: Separator,
    /// The input is JSON, an object a line
    #[arg(long)]
    json: bool,
    /// The key of every record that has none of its own
    #[arg(short, long, value_name = "TEXT")]
    key: Option<String>,
    /// A header for every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, Bytes)>,
    /// The partition of every record [default: by key; without a key, spread]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = units::parse_partition)]
    partition: Option<i32>,
    /// How batches are compressed
    #[arg(long, value_enum, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// When a record counts as written
    #[arg(long, value_enum, value_name = "WHEN", default_value = "all")]
    acks: Acks,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Zstd,
    Lz4,
}

/// When a record counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// Committed: it will not be lost, as the topic's class promises
    All,
    /// The leader has it
    Leader,
    /// Sent
    None,
}

/// Bytes between two things, with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Separator(Vec<u8>);

impl FromStr for Separator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match unescape(text)? {
            bytes if bytes.is_empty() => Err("a separator cannot be empty".to_owned()),
            bytes => Ok(Self(bytes)),
        }
    }
}

fn parse_header(text: &str) -> Result<(String, Bytes), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        }
        _ => Err(format!("\"{text}\" is no header: write NAME=VALUE")),
    }
}

/// Why reading ended.
enum End {
    /// The input is over.
    Over,
    /// Something is wrong with it.
    Wrong(Error),
    /// Ctrl-C.
    Interrupted,
}

impl Produce {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if self.what.offset.is_some() {
            return Err(Error::Usage(format!(
                "{}: the server gives offsets; write the topic alone",
                self.what
            )));
        }
        let partition = match (self.what.partition, self.partition) {
            (Some(a), Some(b)) if a != b => {
                return Err(Error::Usage(format!("{} or partition {b}? Name one", self.what)));
            }
            (a, b) => a.or(b),
        };
        let cutter = self.cutter()?;
        // Topic and partition are looked for before the input is read: what is mistyped costs nothing.
        let mut sender = Some(Sender::open(session, &self, partition).await?);
        if session.dry_run() {
            sender = None;
        }
        if session.dry_run() || partition.is_some() {
            let place = Reference { topic: self.what.topic.clone(), partition, offset: None };
            offsets::partitions(session, &[place]).await?;
        }
        let from = self.input.as_ref().map_or("stdin".to_owned(), |path| path.display().to_string());
        let opened = input::read(&**session.os(), self.input.as_deref(), cutter);
        let (size, batches) =
            opened.map_err(|source| Error::Io { what: format!("cannot read {from}"), source })?;
        if self.input.is_none() && io::stdin().is_terminal() {
            session.say(0, "a line is a record; Ctrl-D ends");
        }
        let mut summary = Summary::new(&self.what.topic, self.compression, session.dry_run());
        let progress = Progress::new(size);
        let watch = sender.as_ref().map(|sender| Watch::over(sender.producer().clone(), progress.clone()));
        let mut end = self.pump(&mut summary, sender.as_mut(), batches, progress, &from).await;
        if matches!(end, End::Interrupted) {
            session.say(0, &interruption(&summary, &from));
        }
        if let Some(sender) = sender {
            // The first thing that was wrong says most.
            if let (Err(error), End::Over | End::Interrupted) = (sender.finish(&mut summary).await, &end) {
                end = End::Wrong(error);
            }
        }
        drop(watch);
        if summary.written() > 0 || summary.in_doubt() {
            session.set_changed();
        }
        // A failure before anything was read has nothing to sum up.
        if summary.records_read() > 0 || matches!(end, End::Over) {
            session.print(&self.view(session, &summary))?;
        }
        match end {
            End::Over => Ok(()),
            End::Interrupted => Err(Error::Interrupted),
            End::Wrong(error) => Err(Self::ended(error, &summary)),
        }
    }

    /// A failure by what it leaves behind: nothing, or something.
    fn ended(error: Error, summary: &Summary) -> Error {
        match (error, summary.written()) {
            (Error::Interrupted, _) => Error::Interrupted,
            (error, 0) if !summary.in_doubt() || error.exit_code() == MAYBE => error,
            (error, written) => {
                let read = units::counted(summary.records_read(), "record");
                let mut left = format!("{} of {read} are acknowledged", units::count(written));
                if let Some((first, behind)) = summary.first_failed() {
                    left.push_str(&format!("; go on from record {}", units::count(first)));
                    if behind > 0 {
                        left.push_str(&format!(", of those behind it {} are written", units::count(behind)));
                    }
                }
                Error::Unfinished { cause: Box::new(error), left }
            }
        }
    }

    fn cutter(&self) -> Result<Box<dyn Cutter>> {
        if self.json {
            let json = Json::new();
            let json = json.ok_or_else(|| Error::Failed("this program knows no NewRecord".to_owned()))?;
            return Ok(Box::new(json));
        }
        if !self.csv {
            return Ok(Box::new(Lines::new(self.key_separator.clone().map(|separator| separator.0))));
        }
        match self.delimiter.0.as_slice() {
            [byte] => Ok(Box::new(Csv::new(self.key_column.clone(), *byte))),
            _ => Err(Error::Usage("--delimiter is one byte, such as , or ; or \\t".to_owned())),
        }
    }

    /// Hands on what is read until the input ends, something fails, or somebody presses Ctrl-C.
    async fn pump(
        &self,
        summary: &mut Summary,
        mut sender: Option<&mut Sender>,
        mut batches: mpsc::Receiver<Batch>,
        progress: Progress,
        from: &str,
    ) -> End {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                Ok(()) = &mut interrupted => return End::Interrupted,
            };
            let (records, reached) = match batch {
                None => return End::Over,
                Some(Batch::Records(records, reached)) => (records, reached),
                Some(Batch::Malformed(malformed)) => {
                    return End::Wrong(Error::Failed(format!("{from}, {malformed}")));
                }
                Some(Batch::Failed(source)) => {
                    return End::Wrong(Error::Io { what: format!("cannot read {from}"), source });
                }
            };
            summary.begin();
            for record in records {
                if let Some(sender) = sender.as_deref_mut() {
                    let sent = tokio::select! {
                        sent = sender.send(record, summary) => sent,
                        Ok(()) = &mut interrupted => return End::Interrupted,
                    };
                    if let Err(error) = sent {
                        return End::Wrong(error);
                    }
                } else {
                    summary.read(record.value_bytes());
                }
            }
            progress.at(reached);
        }
    }

    fn view(&self, session: &Session, summary: &Summary) -> View {
        let mut view = summary.view();
        if session.dry_run() {
            view.line("dry run: nothing written");
        }
        view
    }
}

/// Where reading stopped, so that somebody can go on there.
fn interruption(summary: &Summary, from: &str) -> String {
    match summary.records_read() {
        0 => format!("interrupted before the first record of {from}"),
        read => format!(
            "interrupted after record {} of {from}; waiting for the answers (Ctrl-C ends at once)",
            units::count(read)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_have_escapes_and_are_not_empty() {
        assert_eq!(r"\t".parse(), Ok(Separator(b"\t".to_vec())));
        assert_eq!("::".parse(), Ok(Separator(b"::".to_vec())));
        assert!("".parse::<Separator>().is_err());
        assert!(r"\q".parse::<Separator>().is_err());
    }

    #[test]
    fn an_interruption_says_where_to_go_on() {
        let mut summary = Summary::new("t", Compression::None, false);
        assert_eq!(interruption(&summary, "stdin"), "interrupted before the first record of stdin");
        (0..1_234).for_each(|_| summary.read(1));
        let words = interruption(&summary, "flights.csv");
        assert!(words.starts_with("interrupted after record 1,234 of flights.csv;"), "{words}");
    }

    #[test]
    fn what_is_partly_written_is_told_from_what_is_not() {
        let mut summary = Summary::new("t", Compression::None, false);
        summary.read(1);
        summary.failed(1, weir_client::Applied::No);
        let error = Produce::ended(Error::Failed("full".to_owned()), &summary);
        assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "full"));
        summary.read(1);
        summary.failed(2, weir_client::Applied::Maybe);
        let error = Produce::ended(Error::Failed("full".to_owned()), &summary);
        assert_eq!(error.exit_code(), MAYBE);
        let mut text = Vec::new();
        error.write(&mut text, false, false).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "error: full\n       0 of 2 records are acknowledged; go on from record 1\n"
        );
        assert_eq!(Produce::ended(Error::Interrupted, &summary).exit_code(), 130);
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(parse_header("a=b=c"), Ok(("a".to_owned(), Bytes::from("b=c"))));
        assert!(parse_header("a").is_err());
        assert!(parse_header("=b").is_err());
    }
}
