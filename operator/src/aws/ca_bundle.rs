//! Root certificates that `AWS_CA_BUNDLE` adds to those of the system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_smithy_http_client::tls::TrustStore;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use thiserror::Error;

/// The file of `AWS_CA_BUNDLE` is not usable.
#[derive(Debug, Error)]
pub enum CaBundleError {
    /// The file cannot be read.
    #[error("cannot read {0:?}; set AWS_CA_BUNDLE to a readable PEM file, or unset it")]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file is not a PEM file.
    #[error("cannot parse {0:?}; set AWS_CA_BUNDLE to a PEM file")]
    Malformed(PathBuf, #[source] pem::Error),
    /// The file has no certificate.
    #[error(
        "{0:?} contains no certificate; set AWS_CA_BUNDLE to a PEM file with root certificates"
    )]
    Empty(PathBuf),
    /// The file has a certificate that is not usable.
    #[error(
        "certificate {number} of {path:?} is invalid; remove it from the file of AWS_CA_BUNDLE"
    )]
    Invalid { path: PathBuf, number: usize, source: rustls::Error },
}

/// Returns the trusted certificates: those of the system, and those of the bundle.
///
/// # Errors
///
/// The bundle is not usable. The SDK would panic when it uses such a bundle.
pub fn trust_store(bundle: Option<&Path>) -> Result<TrustStore, CaBundleError> {
    let system = TrustStore::default();
    let Some(path) = bundle else {
        return Ok(system);
    };
    let path = path.to_owned();
    let text = fs::read(&path).map_err(|error| CaBundleError::Unreadable(path.clone(), error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates =
        certificates.map_err(|error| CaBundleError::Malformed(path.clone(), error))?;
    if certificates.is_empty() {
        return Err(CaBundleError::Empty(path));
    }
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates) {
        roots.add(certificate).map_err(|source| CaBundleError::Invalid {
            path: path.clone(),
            number,
            source,
        })?;
    }
    Ok(system.with_pem_certificate(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a bundle with this content.
    fn error(name: &str, content: &[u8]) -> String {
        let file = format!("stream-notifier-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        fs::write(&path, content).unwrap();
        let result = trust_store(Some(&path));
        fs::remove_file(&path).unwrap();
        result.unwrap_err().to_string()
    }

    #[test]
    fn rejects_bundles_that_are_not_usable() {
        let certificate = |body: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let missing = trust_store(Some(Path::new("/no/such/file"))).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read \"/no/such/file\""), "{missing}");
        for (name, content, expected) in [
            ("text", "not a certificate".to_owned(), "contains no certificate"),
            ("open", "-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "cannot parse"),
            ("base64", certificate("?"), "cannot parse"),
            ("der", certificate("AAAA"), "certificate 1 of"),
        ] {
            let error = error(name, content.as_bytes());
            assert!(error.contains(expected) && error.contains("AWS_CA_BUNDLE"), "{error}");
        }
    }
}
