//! TLS to the daemon.
//!
//! It is spoken on a thread of its own, which connects, and then passes bytes between the daemon and one end of a socket pair. So
//! the rest of the client has a plain socket in its hands whatever the connection is, also where it takes one over.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
    sync::oneshot,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What the flags and the environment say. Source: docker(1), `--tls…`.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whose certificates a daemon may have.
    pub ca: PathBuf,
    /// Our own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Whether the daemon's certificate is checked.
    pub verify: bool,
}

/// Connections that are made with TLS.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    broken: Arc<Mutex<Option<String>>>,
}

impl Connector {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn new(tls: &Tls) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if tls.verify {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&tls.ca)? {
                roots.add(certificate).map_err(|error| wrong(&tls.ca, error))?;
            }
            builder.with_root_certificates(roots)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        };
        let config = match &tls.own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let own = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, own)
                    .map_err(|error| format!("could not load X509 key pair: {error}"))?
            }
        };
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), broken: Arc::default() })
    }

    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// The network's, or one without a number for TLS.
    pub async fn connect(&self, address: &str) -> io::Result<UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        let (told, connected) = oneshot::channel();
        let (connector, address) = (self.clone(), address.to_owned());
        std::thread::spawn(move || connector.run(&address, theirs, told));
        connected.await.map_err(io::Error::other)??;
        UnixStream::from_std(ours)
    }

    /// What the last connection broke of: a daemon that wants a certificate says so only after the handshake.
    pub fn reason(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn run(
        &self,
        address: &str,
        client: std::os::unix::net::UnixStream,
        told: oneshot::Sender<io::Result<()>>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(told.send(Err(error))),
        };
        runtime.block_on(async {
            match self.handshake(address).await {
                Err(error) => drop(told.send(Err(error))),
                Ok(daemon) => {
                    let client = UnixStream::from_std(client);
                    // Nobody waits for it any more if that fails.
                    let _ = told.send(Ok(()));
                    if let Ok(client) = client {
                        self.translate(client, daemon).await;
                    }
                }
            }
        });
    }

    /// Passes bytes on until the daemon has no more; a client that closed its sending side is still answered. Why it broke is
    /// noted before the client can see that it did.
    async fn translate(&self, client: UnixStream, daemon: TlsStream<TcpStream>) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_daemon, mut to_daemon) = tokio::io::split(daemon);
        let input = async {
            // What the daemon did not take it says itself.
            let _ = tokio::io::copy(&mut from_client, &mut to_daemon).await;
            let _ = to_daemon.shutdown().await;
            std::future::pending::<()>().await;
        };
        let output = async {
            match tokio::io::copy(&mut from_daemon, &mut to_client).await {
                // A daemon that ends without a word has ended.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
                    *broken = Some(remote(&error));
                }
                _ => {}
            }
        };
        tokio::select! {
            () = input => {}
            () = output => {}
        }
    }

    async fn handshake(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        // Only speed depends on it.
        let _ = stream.set_nodelay(true);
        self.tls.connect(name, stream).await
    }
}

/// Words a failure of TLS as Go does; of others the text.
pub fn remote(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRequired | rustls::AlertDescription::BadCertificate,
        )) => "remote error: tls: certificate required\n* the server probably has client authentication (--tlsverify) enabled; check your TLS client certification settings".to_owned(),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned(),
        Some(rustls::Error::InvalidCertificate(why)) => format!("tls: failed to verify certificate: {why}"),
        Some(other) => format!("tls: {other}"),
        None => error.to_string(),
    }
}

fn wrong(path: &std::path::Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    read.collect::<Result<_, _>>().map_err(|error| wrong(path, error))
}

/// `--tls` without `--tlsverify`: encrypted, with whoever answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
