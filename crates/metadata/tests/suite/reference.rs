//! docs/settings.md says what the code does.

use std::path::Path;

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == weir_metadata::settings::reference(),
        "docs/settings.md is not up to date: cargo run -q -p weir-metadata --example settings > docs/settings.md"
    );
}
