//! Creates the certificates of one control plane: a certificate authority, the API server, an
//! administrator, the nodes, and the key pair for ServiceAccount tokens.

use std::net::IpAddr;
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
    issuer: CertifiedIssuer<'static, KeyPair>,
}

pub(crate) struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// Creates the files. The API server's certificate is valid for these addresses and `localhost`.
    pub fn create(scratch: &Scratch, addresses: &[IpAddr]) -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Unique, because a client tells authorities apart by their names.
        let name = scratch.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let names = addresses.iter().map(IpAddr::to_string).chain(["localhost".to_owned()]);
        let mut server = CertificateParams::new(names.collect::<Vec<_>>())?;
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
            issuer: authority,
        })
    }

    /// The certificate of a kubelet, as client and as server.
    pub fn node(&self, scratch: &Scratch, name: &str, address: IpAddr) -> Result<Identity> {
        let mut node = CertificateParams::new([address.to_string()])?;
        node.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        node.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
        node.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Identity::create(scratch, name, node, &self.issuer)
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
