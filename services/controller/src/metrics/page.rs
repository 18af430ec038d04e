//! docs/metrics-of-controllers.md, written from the catalog.

use super::catalog::CATALOG;

const INTRODUCTION: &str = "\
# Metrics of controllers

<!-- Written by `cargo run -p weir-controller --example controller_metrics`; edit services/controller/src/metrics instead. -->

A controller that runs as a process of its own answers `GET /metrics`, `/healthz` and `/readyz` on its HTTP port
(`http_listen`) as a [broker](metrics.md) does. It is ready while it knows who leads and can therefore answer.
";

/// The page as it should be. `cargo run -p weir-controller --example controller_metrics` prints it.
pub fn page() -> String {
    format!("{INTRODUCTION}{}", CATALOG.tables())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_page_is_the_one_that_the_code_writes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics-of-controllers.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == super::page(),
            "not up to date: cargo run -q -p weir-controller --example controller_metrics > docs/metrics-of-controllers.md"
        );
    }
}
