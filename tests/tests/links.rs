//! Every relative link in the repository's pages leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use weir_tests::docs::markdown::links;
use weir_tests::layering::Workspace;

#[test]
fn links_lead_somewhere() -> Result<()> {
    let root = Workspace::root();
    let mut pages = Vec::new();
    for entry in fs::read_dir(&root)? {
        pages.extend(Some(entry?.path()).filter(|path| is_page(path)));
    }
    for folder in ["docs", "clients", "bench", "charts"] {
        find_pages(&root.join(folder), &mut pages)?;
    }
    assert!(pages.len() > 8, "only {} pages were looked at", pages.len());

    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
        for (line, target) in links(&text) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !page.with_file_name(path).exists() {
                broken.push(format!("{}:{line}: {target}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    Ok(())
}

fn find_pages(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let foreign = path.file_name().is_some_and(|name| name == "node_modules" || name == "target");
        if path.is_dir() && !foreign {
            find_pages(&path, pages)?;
        } else if is_page(&path) {
            pages.push(path);
        }
    }
    Ok(())
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}
