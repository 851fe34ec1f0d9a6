//! TLS: whom we trust, how we prove who we are, and what its errors mean. The arithmetic is ring's.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, crypto};
use tokio_rustls::rustls::{Error as TlsError, InvalidMessage};

use crate::config::TlsFiles;

/// How to encrypt.
#[derive(Clone)]
pub(super) struct Tls(pub(super) Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    pub(super) fn load(files: &TlsFiles) -> Result<Tls> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(authorities(files.ca.as_deref())?);
        let Some((cert, key)) = &files.identity else { return Ok(Tls(Arc::new(builder.with_no_client_auth()))) };
        let chain = certificates("mqtt.cert_file", cert)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
            let what = "an unencrypted private key in PEM form (`-----BEGIN PRIVATE KEY-----`)";
            unreadable("mqtt.key_file", key, what, error)
        })?;
        let config = builder.with_client_auth_cert(chain, private).map_err(|error| match error {
            TlsError::InconsistentKeys(_) => {
                anyhow!("mqtt.key_file: {} is not the key of the certificate in {}", key.display(), cert.display())
            }
            TlsError::InvalidCertificate(reason) => {
                let what = defect(&reason).map_or_else(|| reason.to_string(), str::to_owned);
                anyhow!("mqtt.cert_file: the certificate in {} is not usable: {what}", cert.display())
            }
            error => anyhow!("mqtt.key_file: {}: {error}", key.display()),
        })?;
        Ok(Tls(Arc::new(config)))
    }
}

/// Those of `file`, or of the system.
fn authorities(file: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates("mqtt.ca_file", path)? {
                store.add(certificate).with_context(|| format!("mqtt.ca_file: {}", path.display()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        bail!("mqtt.ca_file: the system has no certificates; install the package ca-certificates or set this key");
    }
    Ok(store)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |error| unreadable(key, path, "a certificate in PEM form (`-----BEGIN CERTIFICATE-----`)", error);
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(wrong)?;
    if found.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn unreadable(key: &str, path: &Path, what: &str, error: pem::Error) -> anyhow::Error {
    let path = path.display();
    match error {
        pem::Error::Io(error) => anyhow!("{key}: {path}: {error}"),
        pem::Error::NoItemsFound => anyhow!("{key}: {path} does not hold {what}"),
        error => anyhow!("{key}: {path} does not hold {what}: {error}"),
    }
}

/// What an error of TLS somewhere in `error` means and what to do; `None` where there is none.
pub(super) fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let error = find(error)?;
    let text = match error {
        TlsError::InvalidCertificate(reason) => certificate(reason),
        TlsError::AlertReceived(alert) => refusal(*alert),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "what listens at this port does not speak TLS; is the port right, or is it mqtt:// (ws://)?".into()
        }
        error => format!("TLS failed: {error}"),
    };
    Some(text)
}

/// The broker's certificate does not do.
fn certificate(reason: &CertificateError) -> String {
    use CertificateError as E;
    match reason {
        E::UnknownIssuer => {
            "the broker's certificate is signed by an authority that is not trusted; put the authority's \
                             certificate into mqtt.ca_file"
                .into()
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            let names = match reason {
                E::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                    return format!("the broker's certificate has no subjectAltName; {MAKE_ANOTHER}");
                }
                E::NotValidForNameContext { presented, .. } => {
                    format!(" (it is for {})", presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "))
                }
                _ => String::new(),
            };
            format!("the broker's certificate is not for the host name in mqtt.url{names}; use a name that is in it")
        }
        E::Expired | E::ExpiredContext { .. } => {
            "the broker's certificate has expired; renew it (or is this machine's clock wrong?)".into()
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet; is this machine's clock right?".into()
        }
        reason => match defect(reason) {
            Some(defect) => format!("the broker's certificate is not usable: {defect}"),
            None => format!("the broker's certificate is not accepted: {reason}"),
        },
    }
}

const MAKE_ANOTHER: &str = "make another, as docs/configuration.md shows under \"Certificates\"";

/// What is wrong with how a certificate was made. The verifier's own errors are known by their names alone.
fn defect(reason: &CertificateError) -> Option<&'static str> {
    let name = format!("{reason:?}");
    if name.contains("UnsupportedCertVersion") {
        return Some(
            "it is of X.509 version 1, but version 3 is needed; make another, as docs/configuration.md shows under \
             \"Certificates\" (`openssl x509 -req` makes version 3 with `-extfile`)",
        );
    }
    name.contains("CaUsedAsEndEntity").then_some(
        "it is that of an authority (CA:TRUE), which `openssl req -x509` makes; sign another with it, as \
         docs/configuration.md shows under \"Certificates\"",
    )
}

/// `DnsName("localhost")` as `localhost`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// The broker ended the handshake.
fn refusal(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired => {
            "the broker wants a client certificate; set mqtt.cert_file and mqtt.key_file".into()
        }
        A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate | A::AccessDenied => {
            format!("the broker does not accept our certificate ({alert:?}); is mqtt.cert_file signed by an authority that it trusts?")
        }
        A::CertificateExpired => "our certificate (mqtt.cert_file) has expired; renew it".into(),
        A::HandshakeFailure => {
            "the broker refused TLS (HandshakeFailure); does it want a client certificate (mqtt.cert_file, mqtt.key_file)?".into()
        }
        alert => format!("the broker refused TLS ({alert:?}); see its log for the reason"),
    }
}

/// The error of TLS in `error`'s chain.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error's source is the source of what it carries.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = carried.map(|carried| carried as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::ServerName;

    use super::*;

    fn wrong(files: &TlsFiles) -> String {
        format!("{:#}", Tls::load(files).unwrap_err())
    }

    #[test]
    fn a_wrong_file_is_named_with_what_it_should_hold() {
        let folder = tempfile::tempdir().unwrap();
        let [missing, text] = ["missing", "text"].map(|name| folder.path().join(name));
        std::fs::write(&text, "no certificate").unwrap();
        let ca = |path: &Path| TlsFiles { ca: Some(path.into()), identity: None };
        let message = wrong(&ca(&missing));
        assert!(message.starts_with("mqtt.ca_file: ") && message.contains("missing: No such file"), "{message}");
        let message = wrong(&ca(folder.path()));
        assert!(message.starts_with("mqtt.ca_file: ") && message.contains("directory"), "{message}");
        let message = wrong(&ca(&text));
        assert!(message.contains("text does not hold a certificate in PEM form"), "{message}");
        let message = wrong(&TlsFiles { ca: None, identity: Some((text.clone(), text.clone())) });
        assert!(message.contains("mqtt.cert_file") || message.contains("ca-certificates"), "{message}");
    }

    #[test]
    fn names_of_certificates_are_plain() {
        let name = |presented: &[&str]| {
            let expected = ServerName::try_from("broker.lan").unwrap();
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            certificate(&CertificateError::NotValidForNameContext { expected, presented })
        };
        let text = name(&["DnsName(\"localhost\")", "IpAddress(127.0.0.1)"]);
        assert!(text.contains("(it is for localhost, 127.0.0.1)"), "{text}");
        assert!(name(&[]).contains("has no subjectAltName; make another"), "{}", name(&[]));
    }

    #[test]
    fn an_error_of_tls_is_found_in_what_carries_it() {
        let tls = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let carried = io::Error::other(io::Error::other(tls));
        assert!(explain(&carried).unwrap().contains("mqtt.ca_file"));
        assert_eq!(explain(&io::Error::other("something else")), None);
    }
}
