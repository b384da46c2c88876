//! Which certificate authorities vouch for a server, and what a failed handshake means.
//!
//! This module presents no client certificates and checks no revocation lists.

use std::path::Path;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;

/// The most bytes that a file of authorities may have; the bundle of all public ones has 0.2 MB.
const MAX_CA_FILE: u64 = 16 << 20;

/// The settings of a client that trusts the authorities in `ca_file`, or the system's.
///
/// # Errors
/// Reason `tls`, when there are no authorities or they cannot be read.
pub(super) fn config(ca_file: Option<&Path>, stage: Stage) -> Result<TlsConfig, SyncError> {
    let authorities = match ca_file {
        Some(path) => from_file(path, stage)?,
        None => from_system(stage)?,
    };
    let authorities: Vec<_> = authorities
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&authorities))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

fn from_file(path: &Path, stage: Stage) -> Result<Vec<CertificateDer<'static>>, SyncError> {
    let fails = |what: &str| {
        SyncError::new(
            stage,
            Reason::Tls,
            format!("{what} the certificate authorities in {}", path.display()),
        )
        .with_hint("SSL_CERT_FILE must name a file of PEM certificates")
    };
    let pem =
        files::read(path, MAX_CA_FILE).map_err(|cause| fails("cannot read").with_source(cause))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|cause| fails("cannot parse").with_source(cause))?;
    if found.is_empty() {
        return Err(fails("there are none of"));
    }
    Ok(found)
}

fn from_system(stage: Stage) -> Result<Vec<CertificateDer<'static>>, SyncError> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let error = SyncError::new(
        stage,
        Reason::Tls,
        "this system has no certificate authorities",
    )
    .with_hint("name a file of PEM certificates in SSL_CERT_FILE");
    Err(match found.errors.into_iter().next() {
        Some(cause) => error.with_source(cause),
        None => error,
    })
}

/// The error for a handshake with `host` that failed.
pub(super) fn failure(stage: Stage, host: &str, error: rustls::Error) -> SyncError {
    let (what, hint) = match &error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                format!("the certificate of {host} has expired"),
                Some("renew it on the server; if it is valid, correct this node's clock"),
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                format!("the certificate of {host} is not valid yet"),
                Some("correct this node's clock, or the certificate"),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    format!("the certificate of the server is not for the name {host}"),
                    Some("use the name in the certificate in the URL, or correct the certificate"),
                )
            }
            // A bad signature means that an authority of that name is known, with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                format!(
                    "the certificate of {host} is signed by an authority that is not known here"
                ),
                Some("name a PEM file with that authority's certificate in SSL_CERT_FILE"),
            ),
            _ => (
                format!("the certificate of {host} is not acceptable"),
                Some("if the server signs for itself, name its certificate in SSL_CERT_FILE"),
            ),
        },
        rustls::Error::InvalidMessage(_) => (
            format!("{host} does not speak TLS on this port"),
            Some("check the scheme and the port in the URL"),
        ),
        _ => (format!("TLS with {host} failed"), None),
    };
    let error = SyncError::new(stage, Reason::Tls, what).with_source(error);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
