//! Computes Signature Version 4 independently of the operator's signer, to check its requests.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::recorder::RecordedRequest;

/// The parts of an `authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub access_key: String,
    pub date: String,
    pub region: String,
    pub service: String,
    pub signed_headers: Vec<String>,
    pub signature: String,
}

impl Authorization {
    pub fn of(request: &RecordedRequest) -> Result<Self> {
        let header = request.header("authorization").context("no authorization")?;
        Self::parse(header).with_context(|| header.to_owned())
    }

    fn parse(header: &str) -> Option<Self> {
        let mut parts = header.strip_prefix("AWS4-HMAC-SHA256 ")?.split(", ");
        let mut part = |name| parts.next()?.strip_prefix(name);
        let mut credential = part("Credential=")?.split('/').map(str::to_owned);
        let [access_key, date, region, service] =
            std::array::from_fn(|_| credential.next().unwrap_or_default());
        (credential.next()? == "aws4_request" && credential.next().is_none()).then_some(())?;
        let signed_headers = part("SignedHeaders=")?.split(';').map(str::to_owned).collect();
        let signature = part("Signature=")?.to_owned();
        Some(Self { access_key, date, region, service, signed_headers, signature })
    }
}

/// The signature that a request must have for these signed headers. Its path must be normalized.
pub fn signature(
    request: &RecordedRequest,
    authorization: &Authorization,
    secret: &str,
) -> Result<String> {
    let Authorization { date, region, service, signed_headers, .. } = authorization;
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut canonical = format!("{}\n{}\n{query}\n", request.method, encode_path(path));
    for name in signed_headers {
        let value = request.header(name).with_context(|| format!("no {name}"))?;
        canonical += &format!("{name}:{}\n", value.trim());
    }
    let payload = hex(&Sha256::digest(&request.body));
    canonical += &format!("\n{}\n{payload}", signed_headers.join(";"));
    let time = request.header("x-amz-date").context("no x-amz-date")?;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let digest = hex(&Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
    let first_key = format!("AWS4{secret}").into_bytes();
    let key = scope.split('/').fold(first_key, |key, part| hmac(&key, part));
    Ok(hex(&hmac(&key, &to_sign)))
}

/// Encodes a path that is encoded already a second time. All services except S3 require this.
fn encode_path(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
