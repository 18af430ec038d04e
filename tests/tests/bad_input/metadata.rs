//! MetadataService.

use weir_proto::v1::{ErrorReason as R, GetMetadataRequest, WatchMetadataRequest};

use crate::call::Call;
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let get = |change: fn(&mut GetMetadataRequest)| {
        let mut request = GetMetadataRequest::default();
        change(&mut request);
        Call::GetMetadata(request)
    };
    let watch =
        Call::WatchMetadata(WatchMetadataRequest { from_version: -1, ..WatchMetadataRequest::default() });
    vec![
        case(
            "GetMetadataRequest.if_newer_than",
            "if_newer_than",
            R::FieldOutOfRange,
            get(|r| r.if_newer_than = -1),
        ),
        case("GetMetadataRequest.page_size", "page_size", R::FieldOutOfRange, get(|r| r.page_size = -1)),
        case(
            "GetMetadataRequest.page_token",
            "page_token",
            R::PageTokenInvalid,
            get(|r| r.page_token = "x".into()),
        ),
        case("WatchMetadataRequest.from_version", "from_version", R::FieldOutOfRange, watch),
    ]
}
