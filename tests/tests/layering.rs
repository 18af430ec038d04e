//! The layering of the workspace holds, and each check of it can fail.

use std::collections::BTreeSet;

use anyhow::Result;
use weir_tests::layering::rules::{
    against_the_rows, forbidden_dependencies, one_place, one_source_of_randomness, read_file,
    rules_without_a_crate, services_apart, tests_outside,
};
use weir_tests::layering::source::{OWN_DOORS, doors_in, past_the_door, unsafe_in, unsafe_outside, words};
use weir_tests::layering::{Member, Workspace};

const NOTHING: Vec<String> = Vec::new();

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let workspace = Workspace::load()?;
    assert_eq!(against_the_rows(&workspace), NOTHING);
    assert_eq!(forbidden_dependencies(&workspace), NOTHING);
    assert_eq!(rules_without_a_crate(&workspace), NOTHING);
    assert_eq!(services_apart(&workspace), NOTHING);
    assert_eq!(one_source_of_randomness(&workspace), NOTHING);
    assert_eq!(tests_outside(&workspace), NOTHING);
    Ok(())
}

#[test]
fn versions_and_lints_have_one_place() -> Result<()> {
    assert_eq!(one_place(&Workspace::load()?, read_file)?, NOTHING);
    Ok(())
}

#[test]
fn unsafe_code_is_in_one_crate() -> Result<()> {
    // No part of the product: the simulation's own answers in place of the C library's.
    let doors = "simulation/src/doors.rs";
    assert_eq!(unsafe_outside(&Workspace::root(), &["crates/io/", doors])?, NOTHING);
    let everywhere = unsafe_outside(&Workspace::root(), &[])?;
    assert!(everywhere.iter().any(|line| line.starts_with("crates/io/src/")), "{everywhere:?}");
    Ok(())
}

#[test]
fn sockets_and_files_are_opened_through_one_door() -> Result<()> {
    assert_eq!(past_the_door(&Workspace::root(), OWN_DOORS)?, NOTHING);
    Ok(())
}

#[test]
fn another_way_to_a_socket_or_a_file_is_found() -> Result<()> {
    let code = "use std::{env, fs};\n// fs\nfn f() { tokio::net::TcpStream::connect(\"fs\") }\n\
                #[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    let lines: Vec<usize> = doors_in(code).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 3]);
    let wrong = past_the_door(&Workspace::root(), &[("crates/types/", "for no reason")])?;
    assert!(
        wrong.contains(&"crates/types/ has a door of its own and does not use it".to_owned()),
        "{wrong:?}"
    );
    for (place, _) in OWN_DOORS {
        assert!(wrong.iter().any(|line| line.starts_with(place)), "{place}");
    }
    Ok(())
}

#[test]
fn a_dependency_on_no_lower_row_is_found() -> Result<()> {
    for (from, to) in [
        ("weir-types", "weir-config"),
        ("weir-record", "weir-metadata"),
        ("weir-rpc", "weir-client"),
        ("weir-storage", "weir-bench"),
    ] {
        let mut workspace = Workspace::load()?;
        plant(&mut workspace, from, to);
        let expected = format!("{from} must not depend on {to}, which stands in no row below it");
        assert_eq!(against_the_rows(&workspace), [expected]);
    }
    let mut workspace = Workspace::default();
    let member = Member { name: "weir-odd".into(), folder: "crates/odd".into() };
    workspace.members.insert(member.name.clone(), member);
    assert_eq!(against_the_rows(&workspace), ["weir-odd stands in no row of ARCHITECTURE.md"]);
    Ok(())
}

#[test]
fn a_planted_dependency_is_found_with_its_way_in() -> Result<()> {
    let mut workspace = Workspace::load()?;
    plant(&mut workspace, "weir-types", "weir-record");
    plant(&mut workspace, "weir-replication", "innocent");
    plant(&mut workspace, "innocent", "tokio");
    plant(&mut workspace, "weir-storage", "tonic");
    let wrong = forbidden_dependencies(&workspace).join("\n");
    for expected in [
        "weir-types must not depend on weir-record (brought in by weir-types)",
        "weir-replication must not depend on tokio (brought in by innocent)",
        "weir-storage must not depend on tonic (brought in by weir-storage)",
    ] {
        assert!(wrong.contains(expected), "{expected:?} is not in:\n{wrong}");
    }
    Ok(())
}

#[test]
fn services_that_know_each_other_are_found() -> Result<()> {
    for (from, to, expected) in [
        ("weir-broker", "weir-controller", "weir-broker must not depend on the service weir-controller"),
        ("weir-rpc", "weir-broker", "weir-rpc must not depend on the service weir-broker"),
        ("weir-standalone", "weir-cli", "weir-standalone must not depend on weir-cli"),
        ("weir-cli", "weir-broker", "weir-cli must not depend on weir-broker"),
    ] {
        let mut workspace = Workspace::load()?;
        plant(&mut workspace, from, to);
        let wrong = services_apart(&workspace).join("\n");
        assert!(wrong.contains(expected), "{expected:?} is not in:\n{wrong}");
    }
    Ok(())
}

#[test]
fn a_second_source_of_randomness_is_found() -> Result<()> {
    let mut workspace = Workspace::load()?;
    plant(&mut workspace, "weir-storage", "rand");
    let expected = "weir-storage must not depend on rand: use weir_runtime::Os::random_u64";
    assert_eq!(one_source_of_randomness(&workspace), [expected]);
    Ok(())
}

#[test]
fn a_test_crate_in_the_product_is_found() -> Result<()> {
    let mut workspace = Workspace::load()?;
    plant(&mut workspace, "weir-broker", "weir-tests");
    assert!(tests_outside(&workspace).iter().any(|line| line.starts_with("weir-broker must not")));
    Ok(())
}

#[test]
fn a_rule_for_a_crate_that_is_gone_is_found() -> Result<()> {
    let mut workspace = Workspace::load()?;
    workspace.members.remove("weir-storage");
    let wrong = rules_without_a_crate(&workspace);
    assert_eq!(wrong, ["the layering has a rule for weir-storage, which is not in the workspace"]);
    Ok(())
}

#[test]
fn a_version_or_lint_of_its_own_is_found() -> Result<()> {
    let mut workspace = Workspace::default();
    let member = Member { name: "weir-odd".into(), folder: "crates/odd".into() };
    workspace.members.insert(member.name.clone(), member);
    let wrong = one_place(&workspace, |path| {
        assert_eq!(path, "crates/odd/Cargo.toml");
        Ok("[dependencies]\nbytes = \"1\"\nhttp.workspace = true\n[dev-dependencies]\ntempfile = { version = \"3\" }".into())
    })?;
    assert_eq!(
        wrong,
        [
            "crates/odd/Cargo.toml: weir-odd must say [lints] workspace = true",
            "crates/odd/Cargo.toml: [dependencies] bytes must say workspace = true",
            "crates/odd/Cargo.toml: [dev-dependencies] tempfile must say workspace = true",
        ]
    );
    Ok(())
}

#[test]
fn unsafe_is_found_in_code_only() {
    let code = "#![allow(unsafe_code)]\nfn f() {\n    unsafe { g() }\n}\n";
    let lines: BTreeSet<usize> = unsafe_in(code).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, BTreeSet::from([1, 3]));

    let talk = r##"
        // unsafe
        /* unsafe /* nested unsafe */ unsafe */
        const A: &str = "unsafe \" unsafe";
        const B: &str = r#"unsafe " unsafe"#;
        const C: char = '"'; const D: char = '\''; const E: char = '\u{75}';
        fn f<'unsafe_not>(x: &'unsafe_not str) {}
    "##;
    assert_eq!(unsafe_in(talk), []);
    let last = words(talk).pop();
    assert_eq!(last, Some((7, "str".to_owned())));
}

fn plant(workspace: &mut Workspace, from: &str, to: &str) {
    workspace.edges.entry(from.to_owned()).or_default().insert(to.to_owned());
}
