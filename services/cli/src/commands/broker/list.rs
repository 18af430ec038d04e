//! `weir broker list`.

use clap::Args;
use weir_proto::v1::{BrokerDescription, BrokerState};

use super::{all, endpoints, object, state};
use crate::error::Result;
use crate::output::{Column, Table, View};
use crate::session::Session;

/// The brokers, also those that are down; with --all also those that were removed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir broker list
  $ weir broker list --all -o wide
  $ weir broker list -o json")]
pub(crate) struct List {
    /// Those that were removed, too
    #[arg(long)]
    all: bool,
}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        Ok(view(&all(session).await?, self.all))
    }
}

/// `removed`: also those that were removed, which are counted else.
fn view(brokers: &[BrokerDescription], removed: bool) -> View {
    let mut view = View::default();
    let mut table = Table::new(&[
        Column::right("ID"),
        Column::left("STATE"),
        Column::left("RACK"),
        Column::right("LEADS"),
        Column::right("REPLICAS"),
        Column::left("VERSION"),
        Column::left("ENDPOINTS"),
        Column::right("EPOCH").wide(),
    ]);
    let is_gone = |broker: &&BrokerDescription| broker.state() == BrokerState::Removed;
    for broker in brokers.iter().filter(|broker| removed || !is_gone(broker)) {
        table.row([
            broker.broker_id.to_string(),
            state(broker.state()).to_owned(),
            broker.rack.clone(),
            broker.leaders.to_string(),
            broker.replicas.to_string(),
            broker.version.clone(),
            endpoints(broker),
            broker.broker_epoch.to_string(),
        ]);
        view.names.push(broker.broker_id.to_string());
        view.objects.push(object(broker));
    }
    view.table(table);
    match brokers.iter().filter(is_gone).count() {
        0 => {}
        _ if removed => {}
        gone => view.line(format!("and {gone} removed (weir broker list --all)")),
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn those_that_were_removed_are_counted_or_shown() {
        let broker = |broker_id, state: BrokerState| BrokerDescription {
            broker_id,
            state: state.into(),
            ..BrokerDescription::default()
        };
        let brokers = [broker(1, BrokerState::Fenced), broker(2, BrokerState::Removed)];
        let shown = |removed| {
            let (view, mut text) = (view(&brokers, removed), Vec::new());
            view.write(&mut text, Format::Table).unwrap();
            (view.names.clone(), view.objects.len(), String::from_utf8(text).unwrap())
        };
        let (names, objects, text) = shown(false);
        assert_eq!((names.join(","), objects), ("1".to_owned(), 1));
        assert!(text.ends_with("and 1 removed (weir broker list --all)\n"), "{text}");
        let (names, objects, text) = shown(true);
        assert_eq!((names.join(","), objects), ("1,2".to_owned(), 2));
        assert!(text.contains(" removed ") && !text.contains("--all"), "{text}");
    }
}
