//! TLS server with a certificate authority of its own. It forwards every connection without TLS.

use std::net::SocketAddr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;
use crate::scratch::Scratch;

/// A running server.
pub struct TlsServer {
    url: String,
    authority: PathBuf,
    _scratch: Scratch,
}

impl TlsServer {
    /// Starts a server in front of the one at this address.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let scratch = Scratch::new("tls-server")?;
        let Certificates { authority, server: identity, .. } =
            Certificates::create(&scratch, &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
        let certificate = CertificateDer::from_pem_file(&identity.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&identity.key)?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                // A client that does not trust the certificate ends its connection.
                tokio::spawn(async move { drop(forward(client, &acceptor, server).await) });
            }
        });
        Ok(Self { url, authority, _scratch: scratch })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The PEM file of the certificate authority.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}

async fn forward(client: TcpStream, acceptor: &TlsAcceptor, server: SocketAddr) -> Result<()> {
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
