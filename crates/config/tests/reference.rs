//! docs/configuration.md says what the code does.

use std::path::Path;

#[test]
fn the_page_is_the_one_that_the_code_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let written = weir_config::reference();
    let differs = page.lines().zip(written.lines()).find(|(page, written)| page != written);
    assert!(
        page == written,
        "docs/configuration.md is not up to date, first at {differs:?}: \
         cargo run -q -p weir-config --example reference > docs/configuration.md"
    );
}
