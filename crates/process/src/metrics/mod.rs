//! What a process counts: every metric has a row in a catalog before it can be made, and its words come from there, in
//! the scrape and on the page that people read.

mod described;

use std::fmt::Write as _;

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use weir_runtime::Usage;

pub use described::{Described, Kind, Label, Section};

/// Latency buckets in seconds: 50 us to 25 s.
const LATENCY_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 25.0,
];

/// What every process that serves has.
pub const OF_A_PROCESS: Section = Section {
    title: "The process",
    metrics: &[
        Described::new(
            "weir_build_info",
            Kind::Gauge,
            "Always 1: which version runs.",
            "Versions that differ for longer than an upgrade takes.",
        )
        .labelled(&[Label { name: "version", values: "one" }]),
        Described::new(
            "weir_ready",
            Kind::Gauge,
            "1 while `/readyz` says that calls may be sent here.",
            "0 for longer than a start takes: it says why.",
        ),
        Described::new(
            "process_cpu_seconds_total",
            Kind::Counter,
            "Processor time of the whole process.",
            "Its rate is how many processors it keeps busy.",
        ),
        Described::new(
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Memory of the process; the page cache of its files is not in it.",
            "Rises for days: a leak.",
        ),
        Described::new(
            "process_open_fds",
            Kind::Gauge,
            "Files and sockets that are open.",
            "Close to the limit below.",
        ),
        Described::new(
            "process_max_fds",
            Kind::Gauge,
            "How many of them there may be (`ulimit -n`; there is none where it is unlimited).",
            "",
        ),
        Described::new(
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process was started, seconds since 1970.",
            "Changes when nobody has restarted it: it crashes.",
        ),
    ],
};

/// Every metric of a service, in words.
#[derive(Clone, Copy, Debug)]
pub struct Catalog(pub &'static [Section]);

impl Catalog {
    /// All rows.
    pub fn rows(self) -> impl Iterator<Item = &'static Described> {
        self.0.iter().flat_map(|section| section.metrics)
    }

    /// The row of a metric.
    ///
    /// # Panics
    /// There is none. Names are constants: a test makes every metric of a service.
    pub fn row(self, name: &str) -> &'static Described {
        self.rows().find(|row| row.name == name).expect("a metric has a row in the catalog")
    }

    /// What makes the metrics of one instance of the service.
    pub fn maker(self) -> Maker {
        Maker { catalog: self, registry: Registry::new() }
    }

    /// A counter or a gauge that is kept elsewhere, as its row says.
    pub fn single(self, name: &str, now: f64) -> MetricFamily {
        let mut metric = Metric::default();
        if self.row(name).kind == Kind::Counter {
            let mut value = Counter::default();
            value.set_value(now);
            metric.set_counter(value);
        } else {
            let mut value = Gauge::default();
            value.set_value(now);
            metric.set_gauge(value);
        }
        self.family(name, metric)
    }

    /// A metric with the words of its row.
    pub fn family(self, name: &str, metric: Metric) -> MetricFamily {
        let row = self.row(name);
        let mut family = MetricFamily::default();
        family.set_name(row.name.to_owned());
        family.set_help(row.help.to_owned());
        family.set_field_type(match row.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(vec![metric]);
        family
    }

    /// What the process takes of the machine, under the names that every program's metrics have. Where the system does
    /// not say, there are none.
    pub fn usage(self, usage: Option<Usage>) -> Vec<MetricFamily> {
        let Some(usage) = usage else { return Vec::new() };
        let bounded = usage.max_fds.map(|max| self.single("process_max_fds", max as f64));
        let others = [
            self.single("process_cpu_seconds_total", usage.cpu_seconds),
            self.single("process_resident_memory_bytes", usage.resident_bytes as f64),
            self.single("process_open_fds", usage.open_fds as f64),
            self.single("process_start_time_seconds", usage.started_seconds),
        ];
        others.into_iter().chain(bounded).collect()
    }

    /// The tables of a page: what there is, and what to look for in it.
    pub fn tables(self) -> String {
        let mut page = String::new();
        for section in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(
                page,
                "\n## {}\n| metric | type | unit | labels | what it is | what to look for |\n\
                 |---|---|---|---|---|---|\n",
                section.title
            );
            for row in section.metrics {
                let Described { name, kind, help, look, .. } = row;
                let labels: Vec<String> =
                    row.labels.iter().map(|label| format!("`{}`: {}", label.name, label.values)).collect();
                let (kind, unit, labels) = (kind.word(), unit(name), labels.join("; "));
                let _ = writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {help} | {look} |");
            }
        }
        page
    }
}

/// The unit that a name ends with.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    ["bytes", "seconds"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or("")
}

/// Makes metrics from their rows in a catalog.
#[derive(Debug)]
pub struct Maker {
    catalog: Catalog,
    registry: Registry,
}

impl Maker {
    /// A counter.
    pub fn counter(&self, name: &str) -> IntCounter {
        let row = self.catalog.row(name);
        self.made(IntCounter::new(row.name, row.help))
    }

    /// A gauge.
    pub fn gauge(&self, name: &str) -> IntGauge {
        let row = self.catalog.row(name);
        self.made(IntGauge::new(row.name, row.help))
    }

    /// Counters by label.
    pub fn counters(&self, name: &str) -> IntCounterVec {
        let row = self.catalog.row(name);
        self.made(IntCounterVec::new(Opts::new(row.name, row.help), &labels(row)))
    }

    /// Gauges by label.
    pub fn gauges(&self, name: &str) -> IntGaugeVec {
        let row = self.catalog.row(name);
        self.made(IntGaugeVec::new(Opts::new(row.name, row.help), &labels(row)))
    }

    /// The same of what is no whole number.
    pub fn fractions(&self, name: &str) -> GaugeVec {
        let row = self.catalog.row(name);
        self.made(GaugeVec::new(Opts::new(row.name, row.help), &labels(row)))
    }

    /// A histogram of times.
    pub fn histogram(&self, name: &str) -> Histogram {
        self.made(Histogram::with_opts(latency(self.catalog.row(name))))
    }

    /// Histograms of times by label.
    pub fn histograms(&self, name: &str) -> HistogramVec {
        let row = self.catalog.row(name);
        self.made(HistogramVec::new(latency(row), &labels(row)))
    }

    /// What was made, to be gathered.
    pub fn finish(self) -> Registry {
        self.registry
    }

    fn made<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        // Names and labels are constants of the catalog; a test makes every one of them.
        let metric = metric.expect("a constant metric is well-formed");
        self.registry.register(Box::new(metric.clone())).expect("every metric has a name of its own");
        metric
    }
}

fn labels(row: &Described) -> Vec<&'static str> {
    row.labels.iter().map(|label| label.name).collect()
}

fn latency(row: &Described) -> HistogramOpts {
    HistogramOpts::new(row.name, row.help).buckets(LATENCY_BUCKETS.to_vec())
}

/// Metrics in the text format of Prometheus, by name.
pub fn as_text(mut families: Vec<MetricFamily>) -> Vec<u8> {
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
        tracing::error!(%error, "cannot render metrics");
    }
    text
}
