//! Whom we trust: the host's root certificates and those of `certs.d/HOST:PORT/`.
//!
//! Docker's layout, "Verify repository client with certificates": `*.crt` are roots, `NAME.cert` with `NAME.key` is ours.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::{Error, hosts::Trust};

/// What one registry's connections are made with.
///
/// # Errors
/// [`Error::Config`] names the file that cannot be used.
pub fn client_config(
    directory: Option<&Path>,
    trust: Option<&Trust>,
    verify: bool,
) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS cannot be set up: {error}")))?;
    let files = directory.map(list).unwrap_or_default();
    let builder = if verify {
        let mut roots = native_roots().clone();
        let more = trust.into_iter().flat_map(|trust| &trust.ca);
        for path in files.iter().filter(|path| has_extension(path, "crt")).chain(more) {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error))?;
            }
        }
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    };
    let told = trust.and_then(|trust| trust.client.first()).cloned();
    let found = files.iter().find(|path| has_extension(path, "cert"));
    let found = found.map(|path| (path.clone(), Some(path.with_extension("key"))));
    let config = match &told.or(found) {
        None => builder.with_no_client_auth(),
        Some((path, key_path)) => {
            // One file may have both.
            let key_path = key_path.as_ref().unwrap_or(path);
            let key =
                PrivateKeyDer::from_pem_file(key_path).map_err(|error| wrong(key_path, error))?;
            builder
                .with_client_auth_cert(certificates(path)?, key)
                .map_err(|error| wrong(path, error))?
        }
    };
    Ok(Arc::new(config))
}

/// Returns what changes when a certificate does.
pub fn fingerprint(directory: &Path) -> String {
    list(directory).iter().map(|path| stamp(path)).collect()
}

/// As [`fingerprint`], for what `hosts.toml` says.
pub fn trust_fingerprint(trust: &Trust) -> String {
    let pairs = trust.client.iter().flat_map(|(cert, key)| [Some(cert), key.as_ref()]);
    let files: String = trust.ca.iter().chain(pairs.flatten()).map(|path| stamp(path)).collect();
    format!("|{}|{:?}|{files}", trust.skip_verify, trust.dial_timeout)
}

fn stamp(path: &Path) -> String {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    format!("|{}@{:?}", path.display(), modified.ok())
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    found.map_err(|error| wrong(path, error))
}

fn wrong(path: &Path, error: impl std::fmt::Debug) -> Error {
    Error::Config(format!("cannot use {}: {error:?}", path.display()))
}

/// The host's own, read once: one that cannot be read is as if it were not there.
fn native_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

/// For registries that were declared insecure: any certificate will do, but the peer must have its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
