//! Creates the certificates of one control plane: a certificate authority, the API server, an
//! administrator, and the key pair for ServiceAccount tokens.

use std::path::PathBuf;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::scratch::Scratch;

/// Paths of the files. Only the current user can read them.
pub(crate) struct Certificates {
    pub authority: PathBuf,
    pub server: Identity,
    pub administrator: Identity,
    pub token_key: PathBuf,
    pub token_public_key: PathBuf,
}

pub(crate) struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    pub fn create(scratch: &Scratch) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "stream-notifier tests");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut server = CertificateParams::new(["127.0.0.1".into(), "localhost".into()])?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

        let mut administrator = CertificateParams::default();
        administrator.distinguished_name.push(DnType::OrganizationName, "system:masters");
        administrator.distinguished_name.push(DnType::CommonName, "administrator");
        administrator.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

        let tokens = KeyPair::generate()?;
        Ok(Self {
            authority: scratch.write("authority.crt", &authority.pem())?,
            server: Identity::create(scratch, "server", server, &authority)?,
            administrator: Identity::create(scratch, "administrator", administrator, &authority)?,
            token_key: scratch.write("tokens.key", &tokens.serialize_pem())?,
            token_public_key: scratch.write("tokens.pub", &tokens.public_key_pem())?,
        })
    }
}

impl Identity {
    fn create(
        scratch: &Scratch,
        name: &str,
        params: CertificateParams,
        authority: &CertifiedIssuer<'_, KeyPair>,
    ) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        Ok(Self {
            certificate: scratch.write(&format!("{name}.crt"), &certificate.pem())?,
            key: scratch.write(&format!("{name}.key"), &key.serialize_pem())?,
        })
    }
}
