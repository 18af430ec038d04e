//! What the command line says where something is not as its user thinks, with the real binary against a real server.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use weir_runtime::testing::PATIENCE;
use weir_tests::binary;
use weir_tests::docs::world::World;
use weir_tests::process::Setup;

async fn world() -> Result<World> {
    let mut world = World::new(binary::weir()?)?;
    world.serve().await?;
    world.must("weir topic create flights -p 2").await?;
    Ok(world)
}

/// Runs a command that ends with this exit code, and gives all that it printed.
async fn ends(world: &World, command: &str, code: i32) -> Result<String> {
    world.must(&format!("{command} 2>&1; test $? = {code} || {{ echo ended otherwise; false; }}")).await
}

#[tokio::test]
async fn what_is_meant_is_said_where_it_is_not_done() -> Result<()> {
    let world = world().await?;
    for (command, code, words) in [
        ("weir consume flights --from 99999999", 3, "is out of range"),
        ("weir topic set flihgts retention_ms=1d", 3, "did you mean \"flights\"?"),
        ("echo x | weir produce flights -p -1", 2, "partitions have numbers from 0 on"),
        ("weir topic create x -p -1", 2, "1 or more"),
        ("weir topic create x -p 0", 2, "1 or more"),
        ("weir topic set flights --partitions -3", 2, "1 or more"),
        ("weir config set retention_ms=1d --broker 1", 2, "those of its process"),
        ("weir config unset retention_ms --broker 1", 2, "those of its process"),
        ("weir context remove nobody", 3, "there is none yet"),
        ("weir consume flihgts", 3, "TOPIC_NOT_FOUND, not applied"),
        ("echo x | weir produce nope --dry-run", 3, "TOPIC_NOT_FOUND, not applied"),
        ("weir bench produce --topic made --dry-run", 2, "no --dry-run"),
        (
            "weir call TopicService/CreateTopic '{\"topic\": {\"name\": \"made\"}}' --dry-run",
            2,
            "validateOnly",
        ),
        ("weir call TopicService/DeleteTopic '{\"name\": \"flights\"}' --dry-run", 2, "validateOnly"),
        ("printf 'a,b\\n1,\"x\\n2,y\\n' | weir produce flights --csv", 1, "line 2: a quote is not closed"),
        ("weir topic describe ''", 2, "'<NAME>...': the name of the topic is empty"),
        ("weir topic create ''", 2, "'<NAME>': the name of the topic is empty"),
        ("weir topic set '' retention_ms=1d", 2, "'<NAME>': the name of the topic is empty"),
        ("weir topic delete '' --yes", 2, "'<NAME>...': the name of the topic is empty"),
        ("weir topic delete flights flights nope --dry-run", 3, "TOPIC_NOT_FOUND, not applied"),
        ("weir topic describe flights/0", 2, "weir partition describe flights/0"),
        ("echo x | weir produce flights/9", 3, "topic \"flights\" has no partition 9: it has 0 to 1"),
        ("echo x | weir produce flights -p 9", 3, "topic \"flights\" has no partition 9: it has 0 to 1"),
        (
            "weir config set batch_bytes_max=60MiB --yes",
            1,
            "batch_bytes_max is 60MiB: this server takes requests of 16MiB (request_bytes_max)",
        ),
        ("weir topic set flights batch_bytes_max=60MiB", 1, "raise request_bytes_max first"),
        ("weir -c nobody topic list", 3, "there is none yet: weir context add NAME HOST:PORT"),
        ("weir context current", 2, "here: weir context list"),
        (
            "weir context create a localhost:1; WEIR_SERVER= weir -c b status",
            3,
            "known: a (weir context list)",
        ),
        ("weir context add a localhost:2", 0, "changed a: localhost:1 -> localhost:2, in use"),
        ("weir context use a", 0, "WEIR_SERVER=localhost:9347 is set and goes before the context"),
        ("mkdir no; WEIR_CONTEXTS=no WEIR_SERVER= weir status", 1, "cannot read no"),
        // Whoever names the server needs no contexts.
        ("WEIR_CONTEXTS=no weir status", 0, "1 of 1 brokers"),
    ] {
        let said = ends(&world, command, code).await?;
        ensure!(said.contains(words), "{command}: {said}");
    }
    // What was refused was not done.
    ensure!(world.must("weir topic list -o name").await?.trim() == "flights");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_changes_nothing() -> Result<()> {
    let world = world().await?;
    for command in [
        "printf 'a\\nb\\n' | weir produce flights",
        "weir config set retention_ms=14d --yes",
        "weir context add here localhost:9347",
        "weir context add there localhost:9348",
    ] {
        world.must(command).await?;
    }
    let state = "weir topic list -o name; weir topic describe flights -o json; weir config list -o json; \
                 weir context list -o json; weir consume flights --until end -o json | sort";
    let before = world.must(state).await?;
    for command in [
        "weir topic create other",
        "weir topic set flights retention_ms=1d -p 4 --yes",
        "weir topic trim flights --before end --yes",
        "weir topic delete flights --yes",
        "weir config set retention_ms=1d --yes",
        "weir config unset retention_ms --yes",
        "weir context add other localhost:9349 --use",
        "weir context use there",
        "weir context remove here",
        "echo c | weir produce flights",
    ] {
        world.must(&format!("{command} --dry-run")).await?;
        ensure!(world.must(state).await? == before, "{command} --dry-run changes something");
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_there_is_compared_with_what_was_asked_for() -> Result<()> {
    let world = world().await?;
    let same = world.must("weir topic create flights --if-absent -p 2 --set retention_ms=7d").await?;
    ensure!(!same.contains("not as asked for"), "{same}");
    let other = "weir topic create flights --if-absent -p 8 --set retention_ms=1d --set compression=zstd";
    let said = world.must(other).await?;
    for words in ["exists flights", "partitions 2, not 8", "retention_ms 7d -> 1d", "compression"] {
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn an_input_that_is_written_in_part_says_why_and_where_to_go_on() -> Result<()> {
    let world = world().await?;
    let mut lines = "short\n".repeat(3);
    lines.push_str(&"x".repeat(2 << 20));
    lines.push_str("\nlast\n");
    fs::write(world.folder().join("lines"), lines)?;
    let said = ends(&world, "weir produce flights -p 0 -i lines", 6).await?;
    for words in ["RECORD_TOO_LARGE, not applied", "3 of 4 records are acknowledged; go on from record 4"] {
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_check_fails_where_something_is_not_well() -> Result<()> {
    let mut world = world().await?;
    world.must("weir status --check").await?;
    world.must("echo x | weir produce flights -p 0").await?;
    world.stop().await?;
    let logs = fs::read_dir(world.folder().join("weir-data/logs"))?.collect::<Result<Vec<_>, _>>()?;
    let of_the_first = |name: &str| name.starts_with("flights-0.");
    let folder = logs.iter().find(|entry| of_the_first(&entry.file_name().to_string_lossy()));
    fs::remove_file(folder.context("no log")?.path().join("00000000000000000000.log"))?;
    world.serve().await?;

    world.must("weir status").await?;
    let said = ends(&world, "weir status --check", 1).await?;
    ensure!(said.contains("1 offline") && said.contains("not all is well"), "{said}");
    // What is wrong is a sentence, and the table stays one.
    for command in ["weir partition list", "weir partition describe flights", "weir topic describe flights"] {
        let said = world.must(command).await?;
        let (rows, rest): (Vec<_>, Vec<_>) = said.lines().partition(|line| !line.starts_with("flights/0: "));
        ensure!(rest.iter().any(|line| line.contains("segments are missing")), "{said}");
        ensure!(rows.iter().all(|line| line.len() < 150), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_command_also_where_nothing_is_to_be_said() -> Result<()> {
    let world = world().await?;
    world.must("echo hello | weir produce flights -p 0").await?;
    let server = world.server().context("it serves")?.addr();
    let mut command = Command::new(binary::weir()?);
    command.args(["-s", server, "consume", "flights"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut consuming = command.kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(consuming.stdout.take().context("stdout was asked for")?).lines();
    ensure!(timeout(PATIENCE, lines.next_line()).await??.as_deref() == Some("hello"));
    drop(lines);
    let status = timeout(PATIENCE, consuming.wait()).await.context("it goes on for nobody")??;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

#[tokio::test]
async fn files_are_looked_at_by_directory_by_partition_and_by_segment() -> Result<()> {
    let mut world = world().await?;
    for command in
        ["weir topic set flights segment_bytes=2MiB", "seq 1000000 1600000 | weir produce flights/0"]
    {
        world.must(command).await?;
    }
    world.stop().await?;
    let one = "weir segment verify weir-data/logs flights/0 -o json";
    let whole: serde_json::Value = serde_json::from_str(&world.must(one).await?)?;
    ensure!(whole["segments"].as_i64() > Some(2) && whole["problems"] == serde_json::json!([]), "{whole}");
    // The folder alone says the same, from wherever, and also when it is a copy.
    for (line, folder) in [
        ("", "weir-data/logs/flights-0.*"),
        ("cd weir-data/logs/flights-0.*;", "."),
        ("mkdir copies; cp -r weir-data/logs/flights-0.* copies;", "copies/flights-0.*/"),
    ] {
        let said = world.must(&format!("{line} weir segment verify {folder} -o json")).await?;
        ensure!(serde_json::from_str::<serde_json::Value>(&said)? == whole, "{folder}: {said}");
    }
    let batches = world.must("weir segment dump weir-data flights/0 -o json").await?;
    ensure!(world.must("weir segment dump copies/flights-0.* -o json").await? == batches);
    // Segment by segment, what the folder has in a row.
    let each = "for f in copies/flights-0.*/*.log; do weir segment dump $f -o json; done";
    ensure!(world.must(each).await? == batches);
    let records = "weir segment dump copies/flights-0.*/00000000000000000000.log --records -n 1";
    ensure!(world.must(records).await? == "1000000\n");
    for (path, code, words) in [
        ("weir-data/logs flights/7", 3, "holds no flights/7"),
        ("copies/flights-0.* flights/1", 3, "is of flights/0, not of flights/1"),
        ("weir-data/controller", 3, "is no log directory (there is no dir.json in it"),
        ("nothing", 3, "nothing is not there; give the data directory of a server"),
        ("weir-data/logs/checkpoint", 3, "is a file, and no segment"),
        ("$(ls copies/flights-0.*/*.seal | head -1)", 3, "what the server notes beside a segment"),
        (
            "$(cp copies/*/00000000000000000000.log .; ls *.log)",
            1,
            "the name of its folder does not say of which partition",
        ),
    ] {
        for command in ["dump", "verify"] {
            let said = ends(&world, &format!("weir segment {command} {path}"), code).await?;
            ensure!(said.contains(words), "{command} {path}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_json_of_lists_says_where_settings_come_from() -> Result<()> {
    let world = world().await?;
    for command in
        ["weir config set retention_bytes=1GiB --yes", "weir topic create own --set retention_ms=1d"]
    {
        world.must(command).await?;
    }
    let listed = world.must("weir topic list -o json").await?;
    let described = world.must("weir topic describe flights own -o json").await?;
    let of = |text: &str| -> Result<Vec<(String, Vec<serde_json::Value>)>> {
        let topics = text.lines().map(serde_json::from_str::<serde_json::Value>);
        let kept = |topic: serde_json::Value| {
            let all = topic["effective"].as_array().cloned().unwrap_or_default().into_iter();
            let mut kept: Vec<_> = all
                .filter(|s| s["name"].as_str().is_some_and(|name| name.starts_with("retention_")))
                .collect();
            kept.sort_by_key(|setting| setting["name"].to_string());
            (topic["name"].to_string(), kept)
        };
        Ok(topics.map(|topic| topic.map(kept)).collect::<Result<_, _>>()?)
    };
    ensure!(of(&listed)? == of(&described)?, "{listed}{described}");
    Ok(())
}

#[tokio::test]
async fn json_of_records_has_null_where_there_is_no_key_and_comes_back_as_it_was() -> Result<()> {
    let world = world().await?;
    world.must("weir topic create a; weir topic create b; echo no-key | weir produce a").await?;
    let lines =
        "{\"key\":\"\",\"valueText\":\"\"}\n{\"keyText\":\"k\",\"tombstone\":true}\n{\"value\":\"/wA=\"}\n";
    world.must(&format!("printf '{lines}' | weir produce a --json")).await?;
    let read = world.must("weir consume a --until end -o json").await?;
    let fields = |line: &str| -> Result<String> {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let fields = ["key", "keyText", "value", "valueText"].map(|name| record[name].to_string());
        Ok(fields.join(" "))
    };
    let seen = read.lines().map(fields).collect::<Result<Vec<_>>>()?;
    let expected = [
        "null null null \"no-key\"",
        "\"\" \"\" \"\" \"\"",
        "null \"k\" null null",
        "null null \"/wA=\" null",
    ];
    ensure!(seen == expected, "{seen:?}");
    world.must("weir consume a --until end -o json | weir produce b --json").await?;
    let again = world.must("weir consume b --until end -o json").await?;
    ensure!(again.lines().map(fields).collect::<Result<Vec<_>>>()? == expected, "{again}");
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_while_the_server_is_away() -> Result<()> {
    let world = World::new(binary::weir()?)?;
    let setup = Setup::new(world.folder().join("weir-data"));
    let server = setup.start().await?;
    let address = server.addr().to_owned();
    let weir = binary::weir()?;
    let mut watching = Command::new(weir)
        .args(["-s", &address, "-w", "topic", "list", "-o", "name"])
        .env("HOME", world.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut shown = BufReader::new(watching.stdout.take().context("stdout")?).lines();
    let mut failed = BufReader::new(watching.stderr.take().context("stderr")?).lines();
    let create = |name: &str| format!("weir -s {address} topic create {name}");
    world.must(&create("before")).await?;
    ensure!(timeout(PATIENCE, shown.next_line()).await?? == Some("before".to_owned()));
    server.stop().await?;
    let said = timeout(PATIENCE, failed.next_line()).await??.context("it ended")?;
    ensure!(said.starts_with("error: "), "{said}");
    let server = setup.flag("--listen", &*address).start().await?;
    world.must(&create("after")).await?;
    // By name: the new one comes first.
    let mut line = String::new();
    while line != "after" {
        line = timeout(PATIENCE, shown.next_line()).await??.context("it ended")?;
    }
    let pid = watching.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it ended")?;
    kill_process(pid, Signal::INT)?;
    ensure!(timeout(PATIENCE, watching.wait()).await??.code() == Some(130));
    server.stop().await
}

#[tokio::test]
async fn a_start_says_which_topics_allow_more_than_it_takes() -> Result<()> {
    let mut world = world().await?;
    world.stop().await?;
    let setup = Setup::new(world.folder().join("weir-data")).flag("--request-bytes-max", "1MiB");
    setup.start().await?.stop().await?;
    let log = fs::read_to_string(world.folder().join("weir-data.log"))?;
    for words in [
        "topic=\"flights\"",
        "batch_bytes_max=1048576",
        "request_bytes_max=1048576",
        "raise request_bytes_max",
    ] {
        ensure!(log.contains(words), "no {words}: {log}");
    }
    Ok(())
}

#[tokio::test]
async fn a_shell_completes_the_names_of_topics_and_is_quiet_without_a_server() -> Result<()> {
    let mut world = world().await?;
    world.must("weir topic create flowers; weir topic create other").await?;
    // As bash calls it: the line, the words in it, and which of them is completed.
    let bash = r#"source <(weir completion bash)
        try() {
            COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; read -ra COMP_WORDS <<< "$COMP_LINE"
            [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]}-1)); COMPREPLY=()
            _weir_topics weir "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            echo ${COMPREPLY[*]}
        }
        "#;
    let tried = async |world: &World, line: &str| world.must(&format!("{bash} try '{line}' 2>&1")).await;
    for (line, completed) in [
        ("weir produce fl", "flights flowers\n"),
        ("weir topic describe ", "flights flowers other\n"),
        ("weir -o json topic delete o", "other\n"),
        ("weir -s localhost:9347 consume ot", "other\n"),
        ("weir -s localhost:1 consume ot", "\n"),
        ("weir topic desc", "describe\n"),
    ] {
        let said = tried(&world, line).await?;
        ensure!(said == completed, "{line}: {said}");
    }
    ensure!(!tried(&world, "weir produce -").await?.contains("flights"));
    world.stop().await?;
    ensure!(tried(&world, "weir -s localhost:1 produce fl").await? == "\n");
    for (shell, mark) in [("zsh", "_weir_topics'"), ("fish", "(__weir_topics)\"")] {
        let script = world.must(&format!("weir completion {shell}")).await?;
        ensure!(script.matches(mark).count() == 7 && !script.contains("_users"), "{shell}: {script}");
    }
    Ok(())
}
