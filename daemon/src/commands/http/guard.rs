//! Who is let in: on this machine's own addresses every program of it but no page in a browser, elsewhere who knows the
//! token.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{StatusCode, Uri};
use sha2::{Digest, Sha256};

use super::answer::HttpFault;
use super::is_loopback;

/// The shortest token that is taken, bytes.
const SHORTEST: usize = 16;

/// The token's digest. Digests are compared, so how long a comparison takes tells nothing of the token.
pub(super) struct Secret([u8; 32]);

impl Secret {
    /// The first line of the file. The error has the option and the file that is at fault.
    pub(super) fn read(path: &Path) -> Result<Secret, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("--token-file: {}: {error}", path.display()))?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < SHORTEST {
            let have = token.len();
            return Err(format!(
                "--token-file: the first line of {} has {have} characters; a token of at least {SHORTEST} is needed, as \
                 `head -c 24 /dev/urandom | base64` makes one",
                path.display()
            ));
        }
        Ok(Secret(digest(token.as_bytes())))
    }

    fn is(&self, given: &[u8]) -> bool {
        let differences = self.0.iter().zip(digest(given)).fold(0, |differences, (a, b)| differences | (a ^ b));
        differences == 0
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Lets requests in.
pub(super) struct Guard {
    secret: Option<Secret>,
    is_local: bool,
}

impl Guard {
    /// For a server that listens at `address`.
    pub(super) fn new(address: SocketAddr, secret: Option<Secret>) -> Guard {
        Guard { secret, is_local: is_loopback(address.ip()) }
    }

    /// Checks a request by its headers, before its body is read.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), HttpFault> {
        let host = text(headers, HOST).unwrap_or_default();
        // A page elsewhere may send to this machine, and with a name that leads here (DNS rebinding) read the answers.
        if self.is_local && self.secret.is_none() && !is_local_name(host) {
            let message = format!("`{host}` is not this machine; use 127.0.0.1, ::1 or localhost");
            return Err(HttpFault::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        if text(headers, ORIGIN).is_some_and(|origin| origin_host(origin).as_deref() != Some(host)) {
            let message = "pages in a browser may not use this API; requests with a foreign `Origin` are refused";
            return Err(HttpFault::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        match &self.secret {
            Some(secret) if !given(headers).is_some_and(|token| secret.is(&token)) => Err(HttpFault::unauthorized()),
            _ => Ok(()),
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    // What is not ASCII equals nothing that is allowed.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Host and port of an origin; `None` for `null` and what is no URL.
fn origin_host(origin: &str) -> Option<String> {
    origin.parse::<Uri>().ok()?.authority().map(ToString::to_string)
}

/// Whether a `Host` is this machine by a name that nobody else can give.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(is_loopback)
}

/// The token that a client gives: as the password of any user, or as it is.
fn given(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, value) = text(headers, AUTHORIZATION)?.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.trim().into()),
        "basic" => {
            let login = STANDARD.decode(value.trim()).ok()?;
            let colon = login.iter().position(|byte| *byte == b':')?;
            Some(login[colon + 1..].to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, secret: Option<&str>, headers: &[(&'static str, &str)]) -> u16 {
        let secret = secret.map(|token| Secret(digest(token.as_bytes())));
        let guard = Guard::new(address.parse().unwrap(), secret);
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        guard.check(&headers.collect()).map_or_else(|fault| fault.status.as_u16(), |()| 200)
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_lead_here() {
        for host in ["127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860", "127.1.2.3", "[::ffff:127.0.0.1]"] {
            assert_eq!(check("127.0.0.1:7860", None, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:7860", "", "192.168.1.7", "localhost.evil.example", "ä"] {
            assert_eq!(check("[::1]:7860", None, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(check("127.0.0.1:7860", None, &[]), 403);
    }

    #[test]
    fn pages_of_others_are_refused() {
        let with = |origin| check("127.0.0.1:1", None, &[("host", "127.0.0.1:1"), ("origin", origin)]);
        assert_eq!(with("http://127.0.0.1:1"), 200);
        for origin in ["https://evil.example", "null", "http://127.0.0.1:2", "http://127.0.0.1:1@evil.example", ""] {
            assert_eq!(with(origin), 403, "{origin}");
        }
    }

    #[test]
    fn the_token_is_a_password_or_a_bearers() {
        const TOKEN: &str = "a token with : and ü";
        let with = |value: &str| check("0.0.0.0:1", Some(TOKEN), &[("host", "board.local"), ("authorization", value)]);
        let basic = |login: &str| format!("Basic {}", STANDARD.encode(login));
        assert_eq!(with(&basic(&format!("user:{TOKEN}"))), 200);
        assert_eq!(with(&basic(&format!(":{TOKEN}")).replace("Basic", "basic")), 200);
        for wrong in [basic("user"), basic("user:"), basic(TOKEN), basic(&format!("user:{TOKEN}x")), "Basic ?".into()] {
            assert_eq!(with(&wrong), 401, "{wrong}");
        }
        assert_eq!(check("0.0.0.0:1", Some(TOKEN), &[("host", "x")]), 401);
        let bearer = |value| check("0.0.0.0:1", Some("0123456789abcdef"), &[("authorization", value)]);
        assert_eq!((bearer("Bearer 0123456789abcdef"), bearer("Bearer 0123456789abcdeF")), (200, 401));
        assert_eq!((bearer("Bearer"), bearer("Digest 0123456789abcdef")), (401, 401));
    }

    #[test]
    fn a_token_comes_from_a_file_and_is_long() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            Secret::read(file.path())
        };
        assert!(read(" 0123456789abcdef \r\nmore\n").is_ok_and(|secret| secret.is(b"0123456789abcdef")));
        for short in ["", "\n0123456789abcdef", "0123456789abcde"] {
            assert!(read(short).err().is_some_and(|error| error.contains("at least 16")), "{short:?}");
        }
        assert!(Secret::read(Path::new("/no/such/file")).err().is_some_and(|error| error.contains("/no/such/file")));
    }
}
