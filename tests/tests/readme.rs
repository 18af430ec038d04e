//! The README does what it shows: its commands run and print that, and its programs are those that are tried.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use weir_tests::binary;
use weir_tests::docs::markdown::{Block, blocks};
use weir_tests::docs::transcript::{Step, console, difference, shell};
use weir_tests::docs::world::World;
use weir_tests::layering::Workspace;
use weir_tests::tools;

fn readme() -> Result<Vec<Block>> {
    let path = Workspace::root().join("README.md");
    Ok(blocks(&fs::read_to_string(&path).with_context(|| path.display().to_string())?))
}

/// From top to bottom, in one folder, as somebody would who follows it.
#[tokio::test]
async fn commands_print_what_is_shown() -> Result<()> {
    let mut world = World::new(binary::weir()?)?;
    world.serve().await?;
    // The README is followed in the folder that it stands in.
    let data = "tests/data/flights-excerpt.csv";
    fs::create_dir_all(world.folder().join("tests/data"))?;
    fs::copy(Workspace::root().join(data), world.folder().join(data))?;
    if let Some(grpcurl) = tools::grpcurl().await? {
        world.also_find(&grpcurl);
    }
    let mut ran = 0;
    for block in readme()?.into_iter().filter(|block| block.not_run.is_none()) {
        let steps = match block.language.as_str() {
            "console" => console(&block.text),
            "sh" => shell(&block.text),
            _ => continue,
        };
        for step in steps {
            run(&world, &step).await.with_context(|| format!("README.md, block at line {}", block.line))?;
            ran += 1;
        }
    }
    ensure!(ran >= 6, "only {ran} commands of the README were run");
    Ok(())
}

async fn run(world: &World, step: &Step) -> Result<()> {
    let printed = world.must(&step.command).await?;
    match difference(&step.shows, &printed) {
        Some(why) => bail!("$ {}\n{why}", step.command),
        None => Ok(()),
    }
}

/// Programs in other languages are excerpts of the quickstarts, which `languages.rs` runs.
#[test]
fn programs_are_excerpts_of_the_quickstarts() -> Result<()> {
    let mut found = 0;
    for block in readme()?.into_iter().filter(|block| block.not_run.is_none()) {
        let file = match block.language.as_str() {
            "python" => "python/quickstart.py",
            "go" => "go/quickstart/main.go",
            "java" => "java/src/main/java/dev/weir/examples/Quickstart.java",
            "typescript" | "ts" => "typescript/src/quickstart.ts",
            _ => continue,
        };
        let quickstart = fs::read_to_string(Workspace::root().join("clients").join(file))?;
        // The programs take address and topic from their arguments.
        let shown = block.text.replace("\"localhost:9347\"", "address").replace("\"greetings\"", "topic");
        let mut lines = quickstart.lines().map(str::trim);
        for line in shown.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let there = lines.any(|candidate| candidate == line);
            ensure!(
                there,
                "README.md, block at line {}: clients/{file} has no such line (in this order):\n{line}",
                block.line
            );
        }
        found += 1;
    }
    ensure!(found > 0, "the README has no program");
    Ok(())
}
