//! The causes of an error.

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// Whether an error, or one of its causes, is a `T`.
pub fn has_cause<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<T>())
}

/// Whether a connection failed because the issuer of the server's certificate is not trusted.
pub fn has_untrusted_certificate(error: &(dyn Error + 'static)) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref()).any(|cause| {
        matches!(
            cause,
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                    // A trusted issuer of the same name has another key.
                    | CertificateError::BadSignature
            )
        )
    })
}

/// The error, followed by its causes.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // The source of an I/O error is that of its payload, which would be skipped.
        let payload = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        payload.map(|payload| payload as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_untrusted_issuer_in_the_payloads_of_io_errors() {
        let is_untrusted = |error: CertificateError| {
            let error = rustls::Error::InvalidCertificate(error);
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            has_untrusted_certificate(&io::Error::other(error))
        };
        assert!(is_untrusted(CertificateError::UnknownIssuer));
        assert!(is_untrusted(CertificateError::BadSignature));
        assert!(!is_untrusted(CertificateError::Expired));
    }
}
