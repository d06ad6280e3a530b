//! TLS on `tcp://`: the daemon's certificate, and whose clients' certificates are taken.
//!
//! Source: dockerd(8), `--tls`, `--tlsverify`, `--tlscacert`, `--tlscert`, `--tlskey`. Nothing of it is set up, and no memory
//! used, where TLS was not asked for.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// Why the files do not make a configuration.
#[derive(Debug, thiserror::Error)]
#[error("invalid TLS configuration: {0}")]
pub struct Error(String);

fn wrong(path: &Path, error: impl std::fmt::Display) -> Error {
    Error(format!("{}: {error}", path.display()))
}

/// Reads the files.
///
/// # Errors
/// [`Error`], naming the file.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error(error.to_string()))?;
    let builder = if tls.verify {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&tls.ca)? {
            roots.add(certificate).map_err(|error| wrong(&tls.ca, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
        builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&tls.ca, error))?)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(&tls.key, error))?;
    let mut config = builder
        .with_single_cert(certificates(&tls.cert)?, key)
        .map_err(|error| wrong(&tls.cert, error))?;
    // As dockerd: over TLS too there is HTTP/1.1 alone, since connections are taken over.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(path, error))?;
    if all.is_empty() { Err(wrong(path, "no certificate in it")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let tls =
            Tls { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem"), verify: true };
        let error = || acceptor(&tls).err().unwrap().to_string();
        assert!(error().contains("ca.pem"), "{}", error());
        std::fs::write(path("ca.pem"), "nothing\n").unwrap();
        assert!(error().ends_with("ca.pem: no certificate in it"), "{}", error());
    }
}
