//! The runner of real programs does what the tests believe it does, shown with a program that is a few lines of
//! shell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;
use weir_tests::docs::world::World;
use weir_tests::server::Server;

fn program(folder: &TempDir, script: &str) -> Result<PathBuf> {
    let path = folder.path().join("weir");
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

const SERVES: &str = r#"
if [ "$1" = standalone ]; then
    echo "arguments: $*"
    echo '{"grpc":"127.0.0.1:4711"}' >&3
    exec tail -f /dev/null
fi
if [ "$1" = follow ]; then
    tail -f /dev/null > /dev/null &
    trap 'kill $!; exit 130' INT
fi
echo "$WEIR_SERVER does $*"
wait
[ "$1" != fail ]
"#;

#[test]
fn a_server_is_waited_for_and_ended() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let server = Server::ephemeral(&program(&folder, SERVES)?, &log)?;
    assert_eq!(server.address()?, "127.0.0.1:4711");
    assert!(server.ready("http").is_err_and(|error| error.to_string().contains("http")));
    let status = server.stop()?;
    assert_eq!(status.code(), None, "ended by a signal");
    assert_eq!(fs::read_to_string(log)?, "arguments: standalone --ephemeral --port 0 --ready-fd 3\n");
    Ok(())
}

#[test]
fn a_server_that_does_not_get_ready_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for script in
        ["echo the port is taken; exit 3", "echo the port is taken; echo nonsense >&3; tail -f /dev/null"]
    {
        let log = folder.path().join("log");
        let error = Server::ephemeral(&program(&folder, script)?, &log).map(drop).unwrap_err().to_string();
        assert!(error.contains("the port is taken"), "{error}");
    }
    Ok(())
}

#[test]
fn commands_run_against_the_server_and_its_address_is_hidden() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::new(program(&folder, SERVES)?)?;
    world.serve(&[])?;
    assert_eq!(world.must("weir topic list")?, "localhost:9347 does topic list\n");
    assert_eq!(world.interrupt("weir follow")?, "localhost:9347 does follow\n");
    let error = world.must("weir fail | cat").unwrap_err().to_string();
    assert!(error.contains("$ weir fail | cat"), "a failure in a pipe is one: {error}");
    assert!(world.must("pwd")?.contains(world.folder().to_str().unwrap_or("?")));
    Ok(())
}
