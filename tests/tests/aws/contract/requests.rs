//! Comparison of two requests.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use stream_notifier_tests::recorder::RecordedRequest;
use stream_notifier_tests::sigv4::{Authorization, signature};

use super::{ACCESS_KEY, SECRET};

/// Headers that only the SDK's clients send. They describe the client and its retries, and no service
/// requires them.
const SDK_ONLY: [&str; 3] = ["amz-sdk-invocation-id", "amz-sdk-request", "x-amz-user-agent"];

/// Headers that both send with different values.
///
/// - `user-agent` names the product on the raw path, the SDK and its version in the clients.
/// - `x-amz-date` and `authorization` depend on the time; `assert_signed` checks them.
const DIFFERENT_VALUES: [&str; 3] = ["authorization", "user-agent", "x-amz-date"];

/// Headers that only the SDK's clients sign. The hash of the body, which both sign, covers its length.
const SIGNED_BY_SDK_ONLY: [&str; 2] = ["content-length", "x-amz-user-agent"];

/// Asserts that a raw request and the one of the SDK's client differ only as listed. The caller compares
/// the bodies.
pub fn assert_same(raw: &RecordedRequest, sdk: &RecordedRequest) -> Result<()> {
    assert_eq!(raw.method, sdk.method);
    assert_eq!(raw.target, sdk.target, "path and query");

    let [raw_names, sdk_names] = [raw, sdk].map(header_names);
    assert_eq!(raw_names.difference(&sdk_names).count(), 0, "{raw_names:?}, {sdk_names:?}");
    let sdk_only: Vec<_> = sdk_names.difference(&raw_names).copied().collect();
    assert_eq!(sdk_only, SDK_ONLY, "headers that only the SDK sends");
    for name in raw_names.iter().filter(|name| !DIFFERENT_VALUES.contains(name)) {
        // `None` is a header that occurs twice.
        assert!(raw.header(name).is_some(), "{name} in {raw:?}");
        assert_eq!(raw.header(name), sdk.header(name), "{name}");
    }

    assert_same_signing(raw, sdk)
}

/// Asserts that both requests are signed, for the same scope and with the same headers.
fn assert_same_signing(raw: &RecordedRequest, sdk: &RecordedRequest) -> Result<()> {
    let [of_raw, of_sdk] = [assert_signed(raw)?, assert_signed(sdk)?];
    assert_eq!((of_raw.region, of_raw.service), (of_sdk.region, of_sdk.service), "scope");
    let signed_by_both = |name: &String| !SIGNED_BY_SDK_ONLY.contains(&name.as_str());
    let of_sdk: Vec<_> = of_sdk.signed_headers.into_iter().filter(signed_by_both).collect();
    assert_eq!(of_raw.signed_headers, of_sdk, "signed headers");
    Ok(())
}

/// Asserts that a request carries a valid signature over its path, headers and body.
pub fn assert_signed(request: &RecordedRequest) -> Result<Authorization> {
    let authorization = Authorization::of(request)?;
    assert_eq!(authorization.access_key, ACCESS_KEY);
    let time = request.header("x-amz-date").context("no x-amz-date")?;
    assert!(is_basic_iso8601(time), "{time}");
    assert_eq!(authorization.date, time[..8]);
    assert_eq!(authorization.signature, signature(request, &authorization, SECRET)?);
    Ok(authorization)
}

/// Whether it looks like `20261127T172400Z`.
fn is_basic_iso8601(time: &str) -> bool {
    let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "00000000T000000Z"
}

fn header_names(request: &RecordedRequest) -> BTreeSet<&str> {
    request.headers.iter().map(|(name, _)| name.as_str()).collect()
}
