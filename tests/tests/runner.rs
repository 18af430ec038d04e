//! The runner of documents does what the tests believe it does, shown with a program that is a few lines of shell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;
use weir_tests::docs::world::World;

fn program(folder: &TempDir) -> Result<PathBuf> {
    const SCRIPT: &str = r#"#!/bin/sh
if [ "$1" = follow ]; then
    tail -f /dev/null > /dev/null &
    trap 'kill $!; exit 130' INT
fi
echo "does $*"
wait
[ "$1" != fail ]
"#;
    let path = folder.path().join("weir");
    fs::write(&path, SCRIPT)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[tokio::test]
async fn commands_run_in_a_folder_of_their_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::new(program(&folder)?)?;
    assert_eq!(world.must("weir topic list").await?, "does topic list\n");
    let here = world.must("pwd; echo $HOME").await?;
    assert_eq!(here.matches(world.folder().to_str().unwrap_or("?")).count(), 2, "{here}");
    Ok(())
}

#[tokio::test]
async fn a_failure_within_a_pipe_is_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let error = World::new(program(&folder)?)?.must("weir fail | cat").await.unwrap_err().to_string();
    assert!(error.contains("$ weir fail | cat") && error.contains("does fail"), "{error}");
    Ok(())
}

#[tokio::test]
async fn what_goes_on_is_interrupted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::new(program(&folder)?)?;
    assert_eq!(world.interrupt("weir follow").await?, "does follow\n");
    let error = world.interrupt("weir fail").await.unwrap_err().to_string();
    assert!(error.contains("weir fail"), "{error}");
    Ok(())
}
