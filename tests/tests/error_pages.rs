//! The pages of docs/errors do what they show: each block marked `console` fails as the page says, in a cluster with a
//! topic `flights` of eight partitions and no records.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use weir_tests::binary;
use weir_tests::docs::markdown::blocks;
use weir_tests::docs::transcript::{console, difference};
use weir_tests::docs::world::World;
use weir_tests::layering::Workspace;

#[tokio::test]
async fn commands_fail_as_the_pages_say() -> Result<()> {
    let mut world = World::new(binary::weir()?)?;
    world.serve().await?;
    world.must("weir topic create flights -p 8").await?;
    let mut ran = 0;
    for entry in fs::read_dir(Workspace::root().join("docs/errors"))? {
        let path = entry?.path();
        let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for block in blocks(&page).into_iter().filter(|block| block.language == "console") {
            for step in console(&block.text) {
                let printed = world.refused(&step.command).await?;
                if let Some(why) = difference(&step.shows, &printed) {
                    bail!("{}, line {}: $ {}\n{why}", path.display(), block.line, step.command);
                }
                ran += 1;
            }
        }
    }
    ensure!(ran >= 7, "only {ran} commands were run");
    Ok(())
}
