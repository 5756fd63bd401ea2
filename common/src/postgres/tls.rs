//! TLS with libpq's meaning of every `sslmode`, on rustls with the ring provider.
//!
//! What is verified: `require` nothing, unless a root certificate file exists (then as `verify-ca`, as libpq does for
//! compatibility); `verify-ca` the chain and the signatures; `verify-full` the host name too. `allow` and `prefer`
//! verify nothing: they protect against nobody who can change the traffic, with or without a verified certificate.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject,
    },
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    settings::{RootCertificates, SslMode, TlsSettings},
    tap::{Begins, Tap, TapHandle},
    wire::Wire,
};
use crate::error::{Error, Result};

/// What will be verified, decided from `sslmode` and the files that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verification {
    Nothing,
    Chain,
    ChainAndHost,
}

/// Builds the connector. Reads the certificate files.
///
/// # Errors
///
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) for missing or unusable certificate files, naming the file and the
/// `sslmode` that needs it.
pub fn connector(tls: &TlsSettings) -> Result<Connector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut versions = Vec::new();
    if tls.allow_tls13 {
        versions.push(&rustls::version::TLS13);
    }
    if tls.allow_tls12 {
        versions.push(&rustls::version::TLS12);
    }
    let verifier = verifier(tls, &provider)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| Error::refused(format!("could not prepare TLS: {error}")).with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client_identity(tls, &provider)? {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = tls.send_host_name;
    if tls.direct {
        // The server refuses direct TLS without it (protection against cross-protocol attacks).
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Connector { rustls: MakeRustlsConnect::new(config), used: Arc::default() })
}

/// rustls for the driver, which also tells whether it was used: with `prefer` the server decides.
#[derive(Clone)]
pub struct Connector {
    rustls: MakeRustlsConnect,
    used: Arc<AtomicBool>,
}

impl Connector {
    /// Whether a handshake was begun through this connector or a clone of it.
    pub fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }
}

impl Connector {
    /// Handshakes to come with `host`; rows are taken through `handle` from what is inside.
    pub(super) fn for_host(&self, host: &str, handle: TapHandle) -> Handshake {
        let mut rustls = self.rustls.clone();
        let connect = MakeTlsConnect::<Tap<Wire>>::make_tls_connect(&mut rustls, host);
        let Ok(inner) = connect;
        Handshake { inner, used: Arc::clone(&self.used), handle }
    }
}

/// One handshake to come.
pub(super) struct Handshake {
    inner: <MakeRustlsConnect as MakeTlsConnect<Tap<Wire>>>::TlsConnect,
    used: Arc<AtomicBool>,
    handle: TapHandle,
}

type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Tap<Wire>>>::Stream;

impl TlsConnect<Tap<Wire>> for Handshake {
    type Stream = Tap<Encrypted>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Stream>> + Send>>;

    fn connect(self, stream: Tap<Wire>) -> Self::Future {
        self.used.store(true, Ordering::Relaxed);
        let connecting = self.inner.connect(stream);
        Box::pin(async move { Ok(Tap::new(connecting.await?, Begins::Plain, self.handle)) })
    }
}

/// The root certificate file in force, for messages.
pub fn roots_label(tls: &TlsSettings) -> String {
    match &tls.roots {
        RootCertificates::System => "the operating system's authorities (sslrootcert=system)".to_owned(),
        RootCertificates::File(path) | RootCertificates::Default(Some(path)) => path.display().to_string(),
        RootCertificates::Default(None) => "~/.postgresql/root.crt".to_owned(),
    }
}

fn verifier(tls: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let (roots, exists) = match &tls.roots {
        RootCertificates::System => (None, true),
        RootCertificates::File(path) => (Some(path.as_path()), path.exists()),
        RootCertificates::Default(path) => (path.as_deref(), path.as_ref().is_some_and(|path| path.exists())),
    };
    let verification = match tls.mode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => Verification::Nothing,
        SslMode::Require if exists => Verification::Chain,
        SslMode::Require => Verification::Nothing,
        SslMode::VerifyCa => Verification::Chain,
        SslMode::VerifyFull => Verification::ChainAndHost,
    };
    if verification == Verification::Nothing {
        return Ok(Arc::new(Unverified { provider: Arc::clone(provider) }));
    }
    if !exists {
        return Err(Error::refused(format!(
            "root certificate file {} does not exist, and sslmode={} needs it",
            roots_label(tls),
            tls.mode.as_str()
        ))
        .with_hint(
            "Put the authority's certificate there, name it with sslrootcert, use sslrootcert=system for a \
             certificate of a public authority, or sslmode=require to encrypt without verifying.",
        ));
    }
    let mut store = RootCertStore::empty();
    let mut listed = Vec::new();
    match roots {
        None => {
            let loaded = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(loaded.certs);
            if store.is_empty() {
                let why = loaded.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                return Err(Error::refused(format!(
                    "the operating system lists no trusted authorities{why}"
                ))
                .with_hint("Install the package ca-certificates, or name a file with sslrootcert."));
            }
        }
        Some(path) => {
            listed = certificates(path, "root certificate")?;
            let (added, _) = store.add_parsable_certificates(listed.iter().cloned());
            if added == 0 {
                return Err(Error::refused(format!(
                    "no certificate in {} is usable as an authority",
                    path.display()
                ))
                .with_hint("It must be a PEM file with X.509 version 3 certificates."));
            }
        }
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    if let Some(path) = &tls.revocations
        && (tls.revocations_are_explicit || path.exists())
    {
        let lists: Vec<_> = read_pem::<CertificateRevocationListDer<'static>>(path, "revocation list")?;
        // As libpq: once there is a list, an authority without one is an error.
        builder = builder.with_crls(lists);
    }
    let chain = builder.build().map_err(|error| {
        Error::refused(format!("could not use the authorities in {}: {error}", roots_label(tls)))
            .with_source(error)
    })?;
    Ok(Arc::new(Verified { chain, listed, host: verification == Verification::ChainAndHost }))
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    read_pem(path, what)
}

fn read_pem<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>> {
    let bytes = crate::input::read_bytes(path).map_err(|error| {
        Error::refused(format!("could not read the {what} file {}: {error}", path.display()))
            .with_hint("Correct the path or the file's permissions.")
            .with_source(error)
    })?;
    let objects: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match objects {
        Ok(objects) if !objects.is_empty() => Ok(objects),
        Ok(_) => Err(Error::refused(format!("the {what} file {} contains no {what}", path.display()))
            .with_hint("It must be in PEM format (-----BEGIN …).")),
        Err(error) => {
            Err(Error::refused(format!("the {what} file {} is not valid PEM: {error}", path.display()))
                .with_hint("It must be in PEM format (-----BEGIN …)."))
        }
    }
}

/// The client certificate and its key, if there is one to send.
fn client_identity(tls: &TlsSettings, provider: &CryptoProvider) -> Result<Option<CertifiedKey>> {
    let Some(path) = &tls.certificate else { return Ok(None) };
    if !tls.certificate_is_explicit && !path.exists() {
        return Ok(None);
    }
    let chain = certificates(path, "client certificate")?;
    let Some(key_path) = tls.key.as_deref() else {
        return Err(Error::refused(format!("the client certificate {} has no private key", path.display()))
            .with_hint("Name the key with sslkey."));
    };
    let metadata = std::fs::metadata(key_path).map_err(|error| {
        Error::refused(format!("could not read the private key {}: {error}", key_path.display()))
            .with_hint(format!(
                "The client certificate {} needs its key: name it with sslkey.",
                path.display()
            ))
            .with_source(error)
    })?;
    if let Some(hint) = key_is_exposed(metadata.mode(), metadata.uid()) {
        return Err(Error::refused(format!("the private key {} is open to others", key_path.display()))
            .with_hint(hint));
    }
    let bytes = crate::input::read_bytes(key_path).map_err(|error| {
        Error::refused(format!("could not read the private key {}: {error}", key_path.display()))
            .with_source(error)
    })?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        // The parser's own text is left out: it may quote the file.
        Error::refused(format!("the private key {} is encrypted or not in PEM format", key_path.display()))
            .with_hint(
                "Store it unencrypted as PEM, readable only by its owner: `openssl pkey -in KEY -out NEW`.",
            )
    })?;
    let unusable = |error: rustls::Error| {
        Error::refused(format!(
            "could not use the client certificate {} with the key {}: {error}",
            path.display(),
            key_path.display()
        ))
        .with_hint(
            "Check that sslcert and sslkey belong together; RSA, ECDSA and Ed25519 keys are supported.",
        )
        .with_source(error)
    };
    let identity = CertifiedKey::new(chain, provider.key_provider.load_private_key(key).map_err(unusable)?);
    match identity.keys_match() {
        Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(unusable(error)),
        // Whether it can be compared is not ours to demand: the server judges the certificate, and a version 1
        // certificate, which `openssl x509 -req` makes, is fine with it.
        _ => Ok(Some(identity)),
    }
}

/// libpq's rule: a key of the user 0600 or less, a key of root 0640 or less. The hint, if it is broken.
fn key_is_exposed(mode: u32, owner: u32) -> Option<&'static str> {
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    (mode & forbidden != 0).then_some(
        "Its permissions must be u=rw (0600) or less if it is yours, or u=rw,g=r (0640) or less if root owns it.",
    )
}

/// Encrypts without verifying who is at the other end.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // The signature proves possession of the key of a certificate that anybody could have made: it adds nothing, and
    // checking it would refuse the version 1 certificates that `openssl x509 -req` makes and many servers have.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies the chain, and the host name if asked for.
#[derive(Debug)]
struct Verified {
    chain: Arc<WebPkiServerVerifier>,
    /// The certificates of the root file, for self-signed server certificates listed there.
    listed: Vec<CertificateDer<'static>>,
    host: bool,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(verified) => Ok(verified),
            // The name is the last thing that rustls looks at: the chain, dates and revocation have passed.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.host => Ok(ServerCertVerified::assertion()),
            // A self-signed certificate is its own authority (`openssl req -x509`, PostgreSQL's own example). webpki
            // refuses that after it has checked the dates; libpq accepts it when exactly that one is listed.
            Err(error)
                if is_authority_used_by_server(&error)
                    && self.listed.iter().any(|listed| listed == end_entity) =>
            {
                if self.host {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// webpki's `CaUsedAsEndEntity`. rustls passes it on as an opaque error; should its name ever change, such certificates
/// are refused, never accepted.
fn is_authority_used_by_server(error: &rustls::Error) -> bool {
    is_other(error, "CaUsedAsEndEntity")
}

fn is_other(error: &rustls::Error, name: &str) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other))
        if format!("{:?}", other.0) == name)
}

/// What is wrong, in words; lower case.
pub fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is signed by none of the authorities".to_owned()
        }
        _ if is_authority_used_by_server(error) => {
            "the server's certificate is self-signed and not listed".to_owned()
        }
        _ if is_other(error, "UnsupportedCertVersion") => {
            "the server's certificate is of X.509 version 1 and cannot be verified".to_owned()
        }
        rustls::Error::InvalidCertificate(certificate) => {
            format!("the server's certificate is refused: {certificate}")
        }
        other => other.to_string(),
    }
}

/// Why a handshake failed → what to do about it.
pub fn failure_hint(tls: &TlsSettings, error: &rustls::Error) -> String {
    let roots = roots_label(tls);
    let mode = tls.mode.as_str();
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => format!(
                "No authority in {roots} signed it. Put the certificate of the server's authority there, or name its file \
                 with sslrootcert."
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "Renew the server's certificate, and check the clocks of both machines.".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "Check the clocks of both machines.".to_owned()
            }
            CertificateError::Revoked => "Replace the server's certificate: its authority has revoked it.".to_owned(),
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
                "The certificate names no host in its subjectAltName, and a common name alone is no longer accepted. Reissue it \
                 with one, or use sslmode=verify-ca instead of {mode}."
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "Connect under a name that the certificate lists, reissue it, or use sslmode=verify-ca instead of {mode}."
            ),
            _ if is_authority_used_by_server(error) => format!(
                "Add exactly this certificate to {roots}, or give the server one that an authority signed."
            ),
            _ => format!(
                "The certificate must be X.509 version 3 with a subjectAltName; or use sslmode=require without {roots} to \
                 encrypt without verifying."
            ),
        },
        rustls::Error::AlertReceived(_) => {
            "The server ended the handshake; its log says why. It may ask for a client certificate (sslcert, sslkey), \
             or not trust the one it got."
                .to_owned()
        }
        _ => "Check that the server speaks TLS 1.2 or 1.3; its log says more.".to_owned(),
    }
}

#[cfg(test)]
mod tests;
