//! `weir consume`: records out, from where to where the user says, across reconnects.

mod plan;
mod stream;

use clap::Args;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use self::plan::{Plan, Target};
use crate::error::{Error, Result};
use crate::offsets::{self, Extent, Left, OPEN};
use crate::output::Format;
use crate::position::{Position, When};
use crate::record_format::{self, RecordFormat};
use crate::reference::Reference;
use crate::session::Session;
use crate::units;

/// Read records
#[derive(Debug, Args)]
#[command(after_help = format!("\
Without --until and -n it goes on for ever: records are printed as they come, until Ctrl-C.
Positions: start, end, an offset, -N (so many before the end of each partition),
@2026-11-20T10:00Z, @-1h.
Order holds within a partition; partitions come side by side. Partitions that a topic gets while this runs are not
read: begin it again. With --until, a partition that does not tell where it begins or ends (nobody leads it) is named and left
out, and the others are read; it ends with 6 then.

{}

Examples:
  $ weir consume greetings --until end
  $ weir consume flights --from @-1h --until end -n 5 -f '%p@%o %T %k %v\\n'
  $ weir consume flights/0 greetings --from -2 --until end -f json", record_format::HELP))]
pub(crate) struct Consume {
    /// Topics, partitions (flights/3) or single records (flights/3@1042)
    #[arg(required = true, value_name = "TOPIC[/PARTITION[@OFFSET]]")]
    what: Vec<Reference>,
    /// Where to begin
    #[arg(long, value_name = "POSITION", default_value = "start", allow_hyphen_values = true)]
    from: Position,
    /// Where to stop, before this record
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    until: Option<Position>,
    /// Stop after so many records
    #[arg(short = 'n', long = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Read replicas of this rack where they are in sync, and leaders elsewhere
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    rack: String,
    /// How records are written: json, raw, or a text such as '%k %v\n' [default: '%v\n']
    #[arg(short, long)]
    format: Option<RecordFormat>,
}

impl Consume {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let format = self.record_format(session)?;
        let (plan, left) = self.plan(session).await?;
        // A record by name that is not there is an answer; an empty range is one too.
        let record = self.what.iter().find(|what| what.offset.is_some());
        let written = stream::run(session, plan, self.count, self.endless(), &format).await?;
        match record {
            _ if !left.is_empty() && self.count.is_none_or(|count| written < count) => Err(unread(left)),
            Some(record) if self.what.len() == 1 && written == 0 => Err(Error::NotFound(format!(
                "there is no record {record}: it was removed, or its place holds no record (a gap)"
            ))),
            _ => Ok(()),
        }
    }

    fn record_format(&self, session: &Session) -> Result<RecordFormat> {
        if let Some(format) = &self.format {
            return Ok(format.clone());
        }
        match session.format() {
            Format::Table | Format::Wide => Ok(RecordFormat::default()),
            Format::Json => Ok(RecordFormat::Json),
            Format::Name => r"%r\n".parse().map_err(Error::Usage),
            Format::Yaml => Err(Error::Usage(
                "records are not written as YAML: -f json, or a text such as '%k %v\\n'".to_owned(),
            )),
        }
    }

    /// Whether it goes on for ever.
    fn endless(&self) -> bool {
        self.until.is_none() && self.count.is_none() && self.what.iter().any(|what| what.offset.is_none())
    }

    /// Whether it depends on where partitions end. Not where the end is what it stops at: the server stops there by itself
    /// where it does not tell the end beforehand.
    fn needs_ends(&self) -> bool {
        let until = self.until.filter(|until| *until != Position::End);
        self.from.needs_end() || until.is_some_and(Position::needs_end)
    }

    /// Offsets that lie backwards were mistyped. What positions of other kinds come to is another matter: records may come
    /// between two questions, and have whatever time their producer gave them.
    fn check_range(&self) -> Result<()> {
        match (self.from, self.until) {
            (Position::Offset(from), Some(Position::Offset(until))) if until < from => {
                Err(Error::Usage(format!("--until {until} lies before --from {from}")))
            }
            _ => Ok(()),
        }
    }

    /// From where to where each partition is read; and those of a range that do not tell where that is. They keep nobody from
    /// the others, if there are any.
    async fn plan(&self, session: &Session) -> Result<(Plan, Vec<Left>)> {
        self.check_range()?;
        let now_ms = session.wall_ms();
        if let Some(Position::Time(When::At(until))) = self.until
            && until > now_ms
        {
            return Err(Error::Usage(
                "--until is in the future; without it, records are printed as they come".to_owned(),
            ));
        }
        let (mut targets, mut left): (Vec<Target>, Vec<Left>) = (Vec::new(), Vec::new());
        for what in &self.what {
            let partitions = offsets::partitions(session, std::slice::from_ref(what)).await?;
            // Without --until it goes on for ever, or to a number: a partition that comes back would be missing.
            let partly = self.until.is_some() && what.offset.is_none();
            let extents = match (partly, self.needs_ends()) {
                (true, needs_ends) => {
                    let (extents, untold) = offsets::told_extents(session, &partitions, needs_ends).await?;
                    left.extend(untold);
                    extents
                }
                (false, true) => offsets::extents(session, &partitions).await?,
                (false, false) => offsets::extents_from_start(session, &partitions).await?,
            };
            if let Some(offset) = what.offset {
                for extent in &extents {
                    in_range(extent, offset, extent.end - 1)?;
                    targets.push(Target::new(extent, offset, Some(offset + 1)));
                }
                continue;
            }
            let resolve =
                async |position| offsets::resolve_each(session, &extents, position, now_ms, partly).await;
            let from = resolve(self.from).await?;
            let until = match self.until {
                Some(until) => resolve(until).await?.into_iter().map(Some).collect(),
                None => vec![None; extents.len()],
            };
            for ((extent, from), until) in extents.iter().zip(from).zip(until) {
                match (from, until.transpose()) {
                    (Ok(from), Ok(until)) => {
                        in_range(extent, from, extent.end)?;
                        targets.push(Target::new(extent, from, until));
                    }
                    (Err(failure), _) | (_, Err(failure)) => {
                        left.push(Left::new(session, &extent.topic, extent.partition, &failure)?);
                    }
                }
            }
        }
        if targets.is_empty() && !left.is_empty() {
            return Err(left.swap_remove(0).error);
        }
        for Left { name, error } in &left {
            session.say(0, &format!("{name} is left out: {error}"));
        }
        let plan = Plan::new(targets)?.standing_in(self.rack.clone());
        let ends_by_itself = plan.ends_by_itself();
        let plan = plan.known_first();
        if ends_by_itself {
            session.say(
                0,
                "not every leader tells where its partition ends now: those are read as far as it knows them to be \
                 committed (weir errors OFFSET_NOT_AVAILABLE)",
            );
        }
        Ok((plan, left))
    }
}

/// The others are read; these are not, for what keeps the first of them.
fn unread(left: Vec<Left>) -> Error {
    let names: Vec<_> = left.iter().map(|left| left.name.clone()).collect();
    let (count, names) = (units::counted(names.len() as u64, "partition"), names.join(", "));
    let left_said = format!("{count} left out ({names}); the others are read");
    match left.into_iter().next() {
        Some(Left { error, .. }) => Error::Unfinished { cause: Box::new(error), left: left_said },
        None => Error::Partly(left_said),
    }
}

fn in_range(extent: &Extent, offset: i64, last: i64) -> Result<()> {
    let Extent { topic, partition, start, end } = extent;
    if (*start..=last).contains(&offset) {
        return Ok(());
    }
    let holds = match end - start {
        0 => format!("holds no records; the next one is {end}"),
        _ if *end == OPEN => format!("begins at {start}"),
        _ => format!("holds {start} to {}", end - 1),
    };
    let message = format!("{topic}/{partition}@{offset} is out of range: the partition {holds}");
    let problem = Problem::new(ErrorReason::OffsetOutOfRange, message).at(topic, *partition);
    let problem = problem.fact("offset", offset).fact("log_start_offset", start);
    Err(Error::of_problem(&if *end == OPEN { problem } else { problem.fact("end_offset", end) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        let consume = |from: &str, until: &str| Consume {
            what: Vec::new(),
            from: from.parse().unwrap(),
            until: Some(until.parse().unwrap()),
            count: None,
            rack: String::new(),
            format: None,
        };
        let refused = consume("5", "2").check_range().unwrap_err();
        assert_eq!(
            (refused.to_string().as_str(), refused.exit_code()),
            ("--until 2 lies before --from 5", 2)
        );
        for (from, until) in [("5", "5"), ("end", "5"), ("@-1h", "end"), ("-2", "0")] {
            assert!(consume(from, until).check_range().is_ok(), "{from} {until}");
        }
    }

    #[test]
    fn an_offset_out_of_range_is_told_the_range() {
        let open = Extent { topic: "t".into(), partition: 1, start: 7, end: OPEN };
        assert!(in_range(&open, 1 << 40, OPEN - 1).is_ok());
        let error = in_range(&open, 3, OPEN).unwrap_err().to_string();
        assert_eq!(error, "t/1@3 is out of range: the partition begins at 7");
        let extent = |start, end| Extent { topic: "t".into(), partition: 1, start, end };
        assert!(in_range(&extent(5, 10), 10, 10).is_ok());
        let error = in_range(&extent(5, 10), 11, 10).unwrap_err();
        assert_eq!(error.to_string(), "t/1@11 is out of range: the partition holds 5 to 9");
        assert_eq!((error.reason(), error.exit_code()), (Some(ErrorReason::OffsetOutOfRange), 3));
        let error = in_range(&extent(7, 7), 3, 7).unwrap_err().to_string();
        assert!(error.contains("holds no records; the next one is 7"), "{error}");
    }
}
