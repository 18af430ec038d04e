//! The pages of docs/errors, compiled in: what every reason means, whether it was applied, what to do.

macro_rules! pages {
    ($($name:literal)*) => {
        /// Every page: the reason's name and its text in Markdown, in the order of the registry.
        pub(crate) const PAGES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../docs/errors/", $name, ".md")))),*];
    };
}

pages! {
    "UNSPECIFIED"
    "FIELD_REQUIRED"
    "FIELD_OUT_OF_RANGE"
    "FIELDS_CONFLICT"
    "ENUM_UNKNOWN"
    "FEATURE_UNKNOWN"
    "PAGE_TOKEN_INVALID"
    "REQUEST_TOO_LARGE"
    "NOT_SUPPORTED"
    "FIELD_MALFORMED"
    "TOPIC_NOT_FOUND"
    "PARTITION_NOT_FOUND"
    "TOPIC_ALREADY_EXISTS"
    "TOPIC_NAME_INVALID"
    "TOPIC_ID_MISMATCH"
    "PARTITION_COUNT_INVALID"
    "REPLICATION_FACTOR_INVALID"
    "CONFIG_UNKNOWN"
    "CONFIG_INVALID"
    "REVISION_MISMATCH"
    "TOPIC_INTERNAL"
    "BROKER_NOT_FOUND"
    "BROKER_EPOCH_STALE"
    "CLUSTER_MISMATCH"
    "BROKER_IN_USE"
    "QUORUM_AT_RISK"
    "DIRECTORY_FAILED"
    "RECORD_TOO_LARGE"
    "BATCH_TOO_LARGE"
    "BATCH_CORRUPT"
    "BATCH_INVALID"
    "CODEC_UNSUPPORTED"
    "DECOMPRESSION_LIMIT"
    "TIMESTAMP_OUT_OF_RANGE"
    "VALUE_MISSING"
    "TOO_MANY_RECORDS"
    "NOT_LEADER"
    "LEADER_EPOCH_STALE"
    "LEADER_EPOCH_UNKNOWN"
    "NOT_ENOUGH_REPLICAS"
    "FLOOR_NOT_MET"
    "NO_LEADER"
    "STREAM_POISONED"
    "LOSS_NOT_ACCEPTED"
    "OFFSET_OUT_OF_RANGE"
    "OFFSET_NOT_AVAILABLE"
    "OFFSET_MISMATCH"
    "LOG_TRUNCATED"
    "PRODUCER_UNKNOWN"
    "PRODUCER_FENCED"
    "SEQUENCE_GAP"
    "SEQUENCE_TOO_OLD"
    "PRODUCERS_TOO_MANY"
    "DISK_FULL"
    "PARTITION_DAMAGED"
    "PARTITION_OFFLINE"
    "MESSAGE_LARGER_THAN_CLIENT_LIMIT"
    "CONNECTION_LONG_CALLS"
    "OVERLOADED"
    "SLOW_READER"
    "DRAINING"
    "MAX_AGE"
    "DEADLINE_EXCEEDED"
    "OUTCOME_UNKNOWN"
    "CONTROLLER_UNAVAILABLE"
    "INTERNAL"
}

/// The page of a reason, by its name in any case, with or without the prefix of the enum.
pub(crate) fn page(reason: &str) -> Option<(&'static str, &'static str)> {
    let name = canonical(reason);
    PAGES.iter().find(|(known, _)| *known == name).copied()
}

/// The reason's name as the registry writes it.
pub(crate) fn canonical(reason: &str) -> String {
    let name = reason.trim().to_ascii_uppercase().replace('-', "_");
    name.strip_prefix("ERROR_REASON_").map_or(name.clone(), str::to_owned)
}

/// What a reason means, in a sentence: the first one below the page's title.
pub(crate) fn meaning(page: &str) -> &str {
    page.lines().skip(1).find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use weir_proto::v1::{Applied, ErrorReason};

    /// Every reason there is, straight from the compiled proto file.
    fn reasons() -> Vec<ErrorReason> {
        let registry = crate::reflect::pool().get_enum_by_name("weir.v1.ErrorReason").unwrap();
        registry.values().map(|value| ErrorReason::try_from(value.number()).unwrap()).collect()
    }

    #[test]
    fn every_reason_has_a_page_and_every_page_a_reason() {
        let names: Vec<&str> = reasons().into_iter().map(weir_rpc::reasons::name).collect();
        assert_eq!(names, PAGES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "README.md")
            .collect();
        assert_eq!(files, names.iter().map(|name| format!("{name}.md")).collect());
    }

    #[test]
    fn a_page_says_what_the_server_does() {
        for reason in reasons() {
            let class = weir_rpc::reasons::class(reason);
            let (name, page) = page(reason.as_str_name()).unwrap();
            let applied = match class.applied {
                Applied::No => "no",
                Applied::Yes => "yes",
                Applied::Maybe | Applied::Unspecified => "maybe",
            };
            let help = if class.retry { "may help" } else { "does not help" };
            let code = tonic_types::pb::Status { code: class.code as i32, ..Default::default() }.code;
            let line = page.lines().find(|line| line.starts_with("Status `")).unwrap();
            let expected = format!("Applied: {applied}. The same call again: {help}.");
            assert!(line.ends_with(&expected), "{name}: {line}\nexpected {expected}");
            let status = line.split('`').nth(1).unwrap();
            assert_eq!(status_number(status), code, "{name}: {line}");
        }
    }

    fn status_number(name: &str) -> i32 {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        NAMES.iter().position(|n| *n == name).and_then(|i| i32::try_from(i).ok()).unwrap()
    }

    #[test]
    fn every_page_has_the_same_rooms() {
        for (name, page) in PAGES {
            assert!(page.starts_with(&format!("# {name}\n")), "{name}");
            for room in ["## Why it happens", "## What to do", "## Example"] {
                assert!(page.contains(room), "{name} lacks {room:?}");
            }
            assert!(meaning(page).ends_with('.'), "{name}: {:?}", meaning(page));
            let index = include_str!("../../../docs/errors/README.md");
            assert!(index.contains(&format!("[{name}]({name}.md)")), "{name} is not in the index");
        }
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        for written in
            ["TOPIC_NOT_FOUND", "topic_not_found", "topic-not-found", "ERROR_REASON_TOPIC_NOT_FOUND"]
        {
            assert_eq!(page(written).map(|(name, _)| name), Some("TOPIC_NOT_FOUND"), "{written}");
        }
        assert_eq!(page("NO_SUCH"), None);
    }
}
