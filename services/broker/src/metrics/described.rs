//! What is known of a metric before it has a value: from it come the metric, the words in a scrape, and its line in
//! docs/metrics.md.

/// A metric in words.
#[derive(Debug)]
pub(crate) struct Described {
    /// `weir_`, what, the unit; counters end in `_total`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Each with what bounds its values: never users.
    pub(crate) labels: &'static [Label],
    /// What it counts. Part of every scrape.
    pub(crate) help: &'static str,
    /// What it tells whoever looks.
    pub(crate) look: &'static str,
}

/// A label, and its values.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) values: &'static str,
}

/// The kinds that Prometheus knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Metrics that belong together.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) metrics: &'static [Described],
}
