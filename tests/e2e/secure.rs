//! Encrypted connections and websockets, with certificates that are made here.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::json;

use diffused_tests::mqtt::{Broker, Peer, Program, config, wait_until};
use diffused_tests::run;

/// An authority, and the folder for its files.
struct Authority<'a> {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: &'a Path,
    file: PathBuf,
}

impl Authority<'_> {
    fn new<'a>(folder: &'a Path, name: &str) -> Authority<'a> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Authority { issuer, folder, file }
    }

    /// The files of a certificate for the host `name` and of its key, valid until the first day of `year`.
    fn certificate(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [cert, secret] = ["crt", "key"].map(|end| self.folder.join(format!("{name}-{year}.{end}")));
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        (cert, secret)
    }

    /// A listener of mosquitto with such a certificate, and its port.
    fn listener(&self, name: &str, year: i32, more: &str) -> (u16, String) {
        let (cert, key) = self.certificate(name, year);
        let (port, ca) = (free_port(), self.file.display());
        let files = format!("cafile {ca}\ncertfile {}\nkeyfile {}", cert.display(), key.display());
        (port, format!("listener {port} 127.0.0.1\n{files}\n{more}\n"))
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program's configuration with another address and more keys of `[mqtt]`.
fn configured(folder: &Path, url: &str, mqtt: &str) -> String {
    let text = config(folder, 1).replace("mqtt://127.0.0.1:1\"", &format!("{url}\""));
    assert!(text.contains(url));
    format!("{text}{mqtt}\n")
}

fn check_served(url: &str, listener: &str, folder: &Path, mqtt: &str) {
    let mut broker = Broker::prepare(folder, listener);
    broker.start();
    let mut peer = Peer::connect(broker.port);
    let _program = Program::start(folder, &configured(folder, url, mqtt));
    peer.wait_online();
    peer.paint(&json!({"prompt": "a red house", "steps": 1, "id": "a"}));
}

pub(crate) fn tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "house");
    let (port, listener) = authority.listener("localhost", 2100, "");
    let ca = format!("ca_file = {:?}", authority.file);
    check_served(&format!("mqtts://localhost:{port}"), &listener, folder.path(), &ca);
}

pub(crate) fn a_broker_that_wants_a_certificate_gets_ours() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "house");
    let (port, listener) = authority.listener("127.0.0.1", 2100, "require_certificate true");
    let (cert, key) = authority.certificate("frame", 2100);
    let keys = format!("ca_file = {:?}\ncert_file = {cert:?}\nkey_file = {key:?}", authority.file);
    check_served(&format!("mqtts://127.0.0.1:{port}"), &listener, folder.path(), &keys);
}

pub(crate) fn faults_of_tls_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (house, other) = (Authority::new(folder.path(), "house"), Authority::new(folder.path(), "other"));
    let (good, first) = house.listener("localhost", 2100, "");
    let (expired, second) = house.listener("localhost", 2021, "");
    let (misnamed, third) = house.listener("elsewhere.example", 2100, "");
    let (mutual, fourth) = house.listener("localhost", 2100, "require_certificate true");
    let mut broker = Broker::prepare(folder.path(), &[first, second, third, fourth].concat());
    broker.start();
    let plain = broker.port;
    let ca = format!("ca_file = {:?}", house.file);
    let (cert, key) = other.certificate("frame", 2100);
    let stranger = format!("{ca}\ncert_file = {cert:?}\nkey_file = {key:?}");
    let cases = [
        (
            format!("mqtts://localhost:{good}"),
            format!("ca_file = {:?}", other.file),
            "an authority that is not trusted",
        ),
        (format!("mqtts://localhost:{misnamed}"), ca.clone(), "not for the host name in mqtt.url (it is for"),
        (format!("mqtts://localhost:{expired}"), ca.clone(), "certificate has expired"),
        (format!("mqtts://localhost:{mutual}"), ca.clone(), "wants a client certificate; set mqtt.cert_file"),
        (format!("mqtts://localhost:{mutual}"), stranger, "is mqtt.cert_file signed by an authority that it trusts?"),
        (format!("mqtts://localhost:{plain}"), ca, "is this a port for TLS?"),
        (format!("mqtt://localhost:{good}"), String::new(), "want TLS (mqtts://)?"),
        (format!("ws://localhost:{plain}"), String::new(), "is this a port for websockets"),
    ];
    let programs = cases.each_ref().map(|(url, keys, _)| {
        let own = tempfile::tempdir().unwrap();
        (Program::start(own.path(), &configured(own.path(), url, keys)), own)
    });
    for ((program, _), (url, keys, wanted)) in programs.iter().zip(&cases) {
        wait_until(&format!("`{wanted}` is logged of {url}, {keys}"), || program.log().contains(wanted));
    }
    let file = folder.path().join("missing.toml");
    fs::write(&file, configured(folder.path(), "mqtts://localhost", "ca_file = \"/no/missing.pem\"")).unwrap();
    let (status, _, error) = run(&["check", "--config", "missing.toml"], folder.path());
    assert!(status == Some(2) && error.contains("mqtt.ca_file: /no/missing.pem: No such file"), "{status:?}: {error}");
}

pub(crate) fn websockets_plain_and_encrypted() {
    let (plain, folder) = (free_port(), tempfile::tempdir().unwrap());
    let listener = format!("listener {plain} 127.0.0.1\nprotocol websockets");
    check_served(&format!("ws://127.0.0.1:{plain}"), &listener, folder.path(), "");
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "house");
    let (port, listener) = authority.listener("localhost", 2100, "protocol websockets");
    let ca = format!("ca_file = {:?}", authority.file);
    check_served(&format!("wss://localhost:{port}/any/path"), &listener, folder.path(), &ca);
}
