//! Every metric of a controller, in words. One that has no row here cannot be made, and tests see to it that each row has
//! its metric and stands in docs/metrics-of-controllers.md.

use weir_process::metrics::{Catalog, Described, Kind::Gauge, OF_A_PROCESS, Section};

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
                "weir_metadata_version",
                Gauge,
                "The version of the metadata that this controller has.",
                "Stays behind the others': it is cut off, or its disk is slow.",
            ),
        ],
    },
]);
