//! Pages of listings: ordered by name, a token says behind which name and of which version.

use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

const SIZE_DEFAULT: usize = 100;
/// The most that a page has.
pub(crate) const SIZE_MAX: i32 = 1_000;

/// How many entries a page has.
pub(crate) fn size(page_size: i32) -> Result<usize, Problem> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(given) => Ok(given.min(SIZE_MAX.unsigned_abs() as usize)),
        Err(_) => Err(Problem::out_of_range("page_size", page_size, "0 (100) to 1000")),
    }
}

/// The token of the page behind `name`.
pub(crate) fn token(version: i64, name: &str) -> String {
    format!("{version}.{name}")
}

/// The name that a page begins behind; "" for the first page. The version is for people who debug: names keep
/// their order whatever changes, so a listing goes on across changes.
pub(crate) fn after(page_token: &str) -> Result<String, Problem> {
    if page_token.is_empty() {
        return Ok(String::new());
    }
    match page_token.split_once('.') {
        Some((version, name)) if version.parse::<i64>().is_ok() && !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Problem::new(
            ErrorReason::PageTokenInvalid,
            "page_token is not one of this server's: begin again without one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_behind_its_name() {
        assert_eq!(after(&token(7, "a.b")), Ok("a.b".to_owned()));
        assert_eq!(after(""), Ok(String::new()));
        for bad in ["x", "7.", "seven.a"] {
            assert_eq!(after(bad).unwrap_err().reason, ErrorReason::PageTokenInvalid, "{bad}");
        }
    }

    #[test]
    fn sizes_are_clamped_and_never_negative() {
        assert_eq!((size(0), size(7), size(5_000)), (Ok(100), Ok(7), Ok(1_000)));
        assert!(size(-1).is_err());
    }
}
