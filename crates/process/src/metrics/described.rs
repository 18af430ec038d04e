//! What is known of a metric before it has a value: from it come the metric, the words in a scrape, and its line in
//! docs/metrics.md.

/// A metric in words.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// `weir_`, what, the unit; counters end in `_total`.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Each with what bounds its values: never users.
    pub labels: &'static [Label],
    /// What it counts. Part of every scrape.
    pub help: &'static str,
    /// What it tells whoever looks.
    pub look: &'static str,
}

impl Described {
    /// A metric without labels.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str, look: &'static str) -> Self {
        Self { name, kind, labels: &[], help, look }
    }

    /// With labels.
    #[must_use]
    pub const fn labelled(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }
}

/// A label, and its values.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What values it has, and how many.
    pub values: &'static str,
}

/// The kinds that Prometheus knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How many there were of each size.
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Metrics that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// In the order of the page.
    pub metrics: &'static [Described],
}
