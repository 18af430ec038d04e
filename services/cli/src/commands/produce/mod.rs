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
use crate::error::{Error, Result};
use crate::input::{self, Batch, Csv, Cutter, Json, Lines};
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
    #[arg(short, long, value_name = "N")]
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
        // The topic is looked for before the input is read: a mistyped name costs nothing.
        let mut sender = match session.dry_run() {
            true => None,
            false => Some(Sender::open(session, &self, partition).await?),
        };
        let from = self.input.as_ref().map_or("stdin".to_owned(), |path| path.display().to_string());
        let opened = input::read(&**session.os(), self.input.as_deref(), cutter);
        let (size, batches) =
            opened.map_err(|source| Error::Io { what: format!("cannot read {from}"), source })?;
        if self.input.is_none() && io::stdin().is_terminal() {
            session.say(0, "a line is a record; Ctrl-D ends");
        }
        let mut summary = Summary::new(&self.what.topic, self.compression);
        let end = self.pump(&mut summary, sender.as_mut(), batches, Progress::new(size), &from).await;
        let end = match (end, sender) {
            (end, Some(sender)) => sender.finish(&mut summary).await.map_or_else(End::Wrong, |()| end),
            (end, None) => end,
        };
        // A failure before anything was written has nothing to sum up.
        if summary.written() > 0 || matches!(end, End::Over) {
            session.print(&self.view(session, &summary))?;
        }
        match end {
            End::Over => Ok(()),
            End::Interrupted => Err(Error::Interrupted),
            End::Wrong(error) if summary.written() == 0 => Err(error),
            End::Wrong(error) => {
                let before = units::counted(summary.written(), "record");
                Err(Error::Partly(format!("{error}\n       {before} before that were written")))
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
            for record in records {
                summary.read(&record);
                if let Some(sender) = sender.as_deref_mut() {
                    let sent = tokio::select! {
                        sent = sender.send(record, summary) => sent,
                        Ok(()) = &mut interrupted => return End::Interrupted,
                    };
                    if let Err(error) = sent {
                        return End::Wrong(error);
                    }
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
    fn headers_have_a_name_and_a_value() {
        assert_eq!(parse_header("a=b=c"), Ok(("a".to_owned(), Bytes::from("b=c"))));
        assert!(parse_header("a").is_err());
        assert!(parse_header("=b").is_err());
    }
}
