//! What proves to the broker who we are, and to us who it is: the password and the files of TLS. Each is named by a key
//! or is a credential of systemd (`LoadCredential=mqtt-password:…`), which only the service can read. The unit gives
//! those that nobody has set up an empty line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Config;

/// What TLS is set up from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key, for brokers that want one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Config {
    /// User name and password for the broker; the password is read from its file, without the line break at its end.
    pub fn login(&self) -> Result<Option<(String, String)>> {
        self.login_between(credentials(), Path::new(UNITS))
    }

    /// With the credentials that systemd has `given`, or else, for who has a login, those of the unit.
    fn login_between(&self, given: Option<PathBuf>, units: &Path) -> Result<Option<(String, String)>> {
        let by_hand = self.mqtt.username.as_ref().map(|_| units.to_owned());
        self.login_with(given.or(by_hand).as_deref())
    }

    fn login_with(&self, credentials: Option<&Path>) -> Result<Option<(String, String)>> {
        let credential = credential(credentials, "mqtt-password");
        let Some(name) = &self.mqtt.username else {
            return match credential {
                Some(path) => bail!("{}: mqtt.username is missing beside it", path.display()),
                None => Ok(None),
            };
        };
        let Some(path) = self.mqtt.password_file.clone().or(credential) else {
            return Ok(Some((name.clone(), String::new())));
        };
        let text = fs::read_to_string(&path).with_context(|| format!("mqtt.password_file: {}", path.display()))?;
        Ok(Some((name.clone(), text.trim_end_matches(['\r', '\n']).to_owned())))
    }

    /// What TLS is set up from; `None` where the address needs none.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>> {
        self.tls_files_with(Some(&credentials().unwrap_or(UNITS.into())))
    }

    fn tls_files_with(&self, credentials: Option<&Path>) -> Result<Option<TlsFiles>> {
        if !self.mqtt.url.transport.is_tls() {
            return Ok(None);
        }
        let file = |key: &Option<PathBuf>, name| key.clone().or_else(|| credential(credentials, name));
        let (cert, key) = (file(&self.mqtt.cert_file, "mqtt-cert"), file(&self.mqtt.key_file, "mqtt-key"));
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                bail!("mqtt.cert_file: mqtt.key_file, the certificate's private key, is missing beside it")
            }
            (None, Some(_)) => bail!("mqtt.key_file: mqtt.cert_file, the key's certificate, is missing beside it"),
        };
        Ok(Some(TlsFiles { ca: file(&self.mqtt.ca_file, "mqtt-ca"), identity }))
    }

    /// That the files of TLS are not set for an address without TLS.
    pub(super) fn check_tls(&self) -> Result<()> {
        let mqtt = &self.mqtt;
        let keys = [("ca_file", &mqtt.ca_file), ("cert_file", &mqtt.cert_file), ("key_file", &mqtt.key_file)];
        let set = keys.iter().find(|(_, file)| file.is_some());
        match set {
            Some((key, _)) if !mqtt.url.transport.is_tls() => {
                bail!("mqtt.{key}: {} has no TLS; write mqtts:// or wss://, or leave the key out", mqtt.url)
            }
            _ => Ok(()),
        }
    }
}

/// Where the unit takes them from. Outside of the service they are read there, by root, who alone can.
const UNITS: &str = "/etc/diffused/credentials";

/// Where systemd puts the service's credentials.
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The credential's file, if there is more in it than an empty line.
fn credential(folder: Option<&Path>, name: &str) -> Option<PathBuf> {
    let path = folder?.join(name);
    let is_empty = fs::read(&path).is_ok_and(|bytes| bytes.trim_ascii().is_empty());
    (path.exists() && !is_empty).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mqtt: &str) -> Config {
        Config::parse(&format!("[mqtt]\n{mqtt}"), Path::new("c.toml")).unwrap()
    }

    #[test]
    fn the_line_break_at_a_passwords_end_is_no_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let with_file = config(&format!("username = \"frame\"\npassword_file = {file:?}"));
        for (text, password) in [("geheim", "geheim"), ("geheim\n", "geheim"), (" a b \r\n", " a b "), ("\n", "")] {
            fs::write(&file, text).unwrap();
            assert_eq!(with_file.login_with(None).unwrap(), Some(("frame".into(), password.into())));
        }
        let error = format!(
            "{:#}",
            config("username = \"frame\"\npassword_file = \"/no/password\"").login_with(None).unwrap_err()
        );
        assert!(error.starts_with("mqtt.password_file: ") && error.contains("no/password"), "{error}");
    }

    #[test]
    fn credentials_of_systemd_stand_in_for_keys() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Some(folder.path());
        for name in ["mqtt-password", "mqtt-ca", "mqtt-cert", "mqtt-key"] {
            fs::write(folder.path().join(name), format!("{name}\n")).unwrap();
        }
        let login = config("username = \"frame\"").login_with(credentials).unwrap();
        assert_eq!(login, Some(("frame".into(), "mqtt-password".into())));
        let error = config("").login_with(credentials).unwrap_err().to_string();
        assert!(error.contains("mqtt.username is missing"), "{error}");

        let tls =
            config("url = \"mqtts://broker\"\nca_file = \"/own.pem\"").tls_files_with(credentials).unwrap().unwrap();
        assert_eq!(tls.ca, Some("/own.pem".into()), "a key goes before a credential");
        assert_eq!(tls.identity, Some((folder.path().join("mqtt-cert"), folder.path().join("mqtt-key"))));
        assert_eq!(config("").tls_files_with(credentials).unwrap(), None);
    }

    #[test]
    fn credentials_that_nobody_has_set_up_are_as_if_they_were_missing() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Some(folder.path());
        for name in ["mqtt-password", "mqtt-ca", "mqtt-cert", "mqtt-key"] {
            fs::write(folder.path().join(name), "\n").unwrap();
        }
        assert_eq!(config("").login_with(credentials).unwrap(), None);
        assert_eq!(
            config("username = \"frame\"").login_with(credentials).unwrap(),
            Some(("frame".into(), String::new()))
        );
        let tls = config("url = \"mqtts://broker\"").tls_files_with(credentials).unwrap();
        assert_eq!(tls, Some(TlsFiles { ca: None, identity: None }));
    }

    #[test]
    fn outside_of_the_service_those_of_the_unit_are_read() {
        let [units, given] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fs::write(units.path().join("mqtt-password"), "geheim\n").unwrap();
        let login = |mqtt: &str, given| config(mqtt).login_between(given, units.path()).unwrap();
        assert_eq!(login("username = \"frame\"", None), Some(("frame".into(), "geheim".into())));
        assert_eq!(login("username = \"frame\"", Some(given.path().into())), Some(("frame".into(), String::new())));
        assert_eq!(login("", None), None);
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        let error = |text: &str| config(text).tls_files_with(None).unwrap_err().to_string();
        assert!(error("url = \"mqtts://b\"\ncert_file = \"/c\"").contains("mqtt.key_file"));
        assert!(error("url = \"wss://b\"\nkey_file = \"/k\"").contains("mqtt.cert_file"));
    }
}
