//! Whatever stands in a file, the environment or a flag: a configuration or an error, never a panic.

use std::ffi::OsString;

use proptest::prelude::*;
use weir_config::{Loader, Standalone, all_keys};

fn any_name() -> impl Strategy<Value = String> {
    let names: Vec<_> = all_keys().map(|key| key.name.to_owned()).collect();
    prop_oneof![3 => prop::sample::select(names), 1 => "[a-z_.\\[\\]]{0,20}", 1 => ".{0,20}"]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[0-9]{1,20}(ms|s|m|h|d|B|KiB|GiB)?",
        "[0-9.]{1,12}:[0-9]{1,6}(,[a-z]{1,3}:[0-9]{1,6})?",
        "(true|false|auto|json|\\[\\]|-1|0x10)",
        ".{0,40}",
    ]
}

proptest! {
    #[test]
    fn anything_may_be_written(
        lines in prop::collection::vec((any_name(), any_text(), any::<bool>()), 0..5),
        variables in prop::collection::vec((any_name(), any_text()), 0..3),
        flags in prop::collection::vec((any_name(), any_text()), 0..3),
    ) {
        let file: String = lines
            .iter()
            .map(|(name, text, quoted)| {
                if *quoted { format!("{name} = {text:?}\n") } else { format!("{name} = {text}\n") }
            })
            .collect();
        let variables = variables
            .into_iter()
            .map(|(name, text)| (OsString::from(format!("WEIR_{}", name.to_uppercase())), OsString::from(text)));
        let mut loader = Loader::new().text("weir.toml", file).environment(variables);
        for (name, text) in flags {
            loader = loader.flag(&name, text);
        }
        if let Ok(loaded) = loader.load::<Standalone>() {
            let again = Loader::new().text("shown.toml", loaded.to_string()).load::<Standalone>();
            prop_assert_eq!(again.map(|again| again.config).ok(), Some(loaded.config));
        }
    }
}
