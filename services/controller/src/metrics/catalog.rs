//! Every metric of a controller, in words. One that has no row here cannot be made, and tests see to it that each row has
//! its metric and stands in docs/metrics-of-controllers.md.

use weir_process::metrics::{
    Catalog, Described,
    Kind::{Counter, Gauge, Histogram},
    Label, OF_A_PROCESS, Section,
};

pub(crate) const CATALOG: Catalog = Catalog(&[
    OF_A_PROCESS,
    Section {
        title: "The quorum",
        metrics: &[
            Described::new(
                "weir_controller_leads",
                Gauge,
                "1 at the controller that leads.",
                "The sum over all controllers is not 1 for longer than an election takes: nothing can be changed.",
            ),
            Described::new(
                "weir_controller_voters",
                Gauge,
                "Controllers that vote, as this one knows.",
                "Fewer than there should be: one has not joined. An even number bears no more failures than one less.",
            ),
            Described::new(
                "weir_controller_voters_away",
                Gauge,
                "Controllers that vote and do not answer, at the one that leads; 0 at the others.",
                "Above 0 for longer than a restart takes: start it. Of three one may be away, and then no other.",
            ),
            Described::new(
                "weir_metadata_version",
                Gauge,
                "The version of the metadata that this controller has.",
                "Stays behind the others': it is cut off, or its disk is slow.",
            ),
            Described::new(
                "weir_controller_term",
                Gauge,
                "The term of the controllers' election that this one knows.",
                "Rises without anybody having been stopped: heartbeats between controllers are late.",
            ),
            Described::new(
                "weir_controller_proposals_queued",
                Gauge,
                "Changes that wait for the next entry of the log.",
                "Stays above 0: the disks of controllers are slow, or somebody changes much.",
            ),
            Described::new(
                "weir_controller_commit_seconds",
                Histogram,
                "From a change's proposal to its being applied at the controller that leads, as a majority has it on its disks.",
                "Over 0.1 s: a slow disk at a majority of controllers.",
            ),
        ],
    },
    Section {
        title: "Brokers and partitions, as this controller has them",
        metrics: &[
            Described::new(
                "weir_cluster_brokers",
                Gauge,
                "Brokers by how they are.",
                "Fenced ones that nobody has stopped; failed ones, which wait for a person: weir broker list.",
            )
            .labelled(&[Label { name: "state", values: "registered, active, slow, draining, fenced, failed" }]),
            Described::new("weir_cluster_partitions", Gauge, "Partitions there are.", ""),
            Described::new(
                "weir_cluster_partitions_leaderless",
                Gauge,
                "Partitions that nobody leads: they take and give nothing.",
                "Above 0 for longer than an election takes: their brokers are down.",
            ),
            Described::new(
                "weir_cluster_partitions_waiting",
                Gauge,
                "Those of them of which no replica is known to be complete: nobody will lead them by itself.",
                "Above 0: weir status names them, weir partition describe says what to do.",
            ),
            Described::new(
                "weir_cluster_partitions_under_replicated",
                Gauge,
                "Partitions with replicas that are not in sync.",
                "Above 0 for longer than a restart takes: a broker is down, or cannot keep up.",
            ),
            Described::new(
                "weir_cluster_partitions_below_min",
                Gauge,
                "Partitions with fewer replicas in sync than a write needs.",
                "Above 0: they refuse writes.",
            ),
            Described::new(
                "weir_cluster_partitions_not_preferred",
                Gauge,
                "Partitions led by another replica than the preferred one.",
                "Stays high: leaderships are not given back, because replicas are not in sync.",
            ),
            Described::new(
                "weir_cluster_elections_total",
                Counter,
                "Changes of a partition's leader, also to nobody, by what caused them.",
                "unclean: records may be lost. fenced: brokers die. failed: disks do.",
            )
            .labelled(&[Label {
                name: "cause",
                values: "fenced, failed, draining, slow, registered, unfenced, preferred, unclean, assigned, other",
            }]),
            Described::new(
                "weir_cluster_isr_changes_total",
                Counter,
                "In-sync sets that became smaller or larger.",
                "Shrinks that keep coming: a slow disk, or a network that drops packets.",
            )
            .labelled(&[Label { name: "direction", values: "shrink, expand" }]),
            Described::new(
                "weir_cluster_fenced_total",
                Counter,
                "Brokers fenced by this controller, by how it found out.",
                "silence: brokers or networks that hang; gone: processes that die.",
            )
            .labelled(&[Label { name: "how", values: "silence, gone" }]),
        ],
    },
]);
