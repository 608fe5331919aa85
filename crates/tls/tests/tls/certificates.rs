//! What is wrong with certificates is said, all of it, and what is replaced is taken.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::version::TLS13;
use wootz_tls::{
    CertificateError, CertificateProblem as Problem, CertificateSettings, Certificates, Reload, Sought, TlsAcceptor,
    TlsSettings, Warning,
};

use crate::authority::{Authority, EC};
use crate::pair::{Pair, client_config};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn load(settings: &CertificateSettings) -> Result<Vec<Warning>, Vec<CertificateError>> {
    Certificates::load(vec![settings.clone()], SystemTime::now()).map(|(_, warnings)| warnings)
}

fn problem(settings: &CertificateSettings) -> Problem {
    let mut errors = load(settings).expect_err("it is refused");
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = errors.remove(0);
    assert!(error.to_string().starts_with(&format!("{}: ", error.path.display())), "{error}");
    error.problem
}

#[test]
fn keys_are_read_in_every_form_that_openssl_writes() {
    let authority = Authority::new();
    for (name, newkey) in [("rsa", "-newkey rsa:2048"), ("ec", EC), ("ed", "-newkey ed25519")] {
        let mut settings = authority.issue_with(name, &["localhost"], newkey);
        assert_eq!(load(&settings), Ok(vec![]), "{name}");
        authority.write("passphrase", "correct horse\r\n");
        fs::set_permissions(authority.path("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
        settings.passphrase_file = Some(authority.path("passphrase"));
        for cipher in [
            "-v2 aes256",
            "-v2 aes128 -v2prf hmacWithSHA512",
            "-v2 des3",
            "-v2 aes256 -v2prf hmacWithSHA1",
            "-scrypt -scrypt_N 1024",
        ] {
            authority.write("pass", "correct horse");
            authority.openssl(&format!("pkcs8 -topk8 -in {name}.key -out encrypted.key -passout file:pass {cipher}"));
            settings.key = authority.path("encrypted.key");
            assert_eq!(load(&settings), Ok(vec![]), "{name} {cipher}");
        }
    }
    for (name, convert) in [("rsa", "rsa -traditional"), ("ec", "ec")] {
        authority.openssl(&format!("{convert} -in {name}.key -out old.key"));
        assert!(authority.read("old.key").contains(&format!("BEGIN {} PRIVATE KEY", name.to_uppercase())));
        let settings = authority.settings(&format!("{name}.chain.pem"), "old.key");
        assert_eq!(load(&settings), Ok(vec![]), "{name}");
    }
}

#[test]
fn certificate_and_key_may_share_a_file_with_more_around_them() {
    let authority = Authority::new();
    authority.issue("leaf", &["localhost"]);
    let parameters = authority.openssl("ecparam -name prime256v1");
    let all = ["a remark\n", &parameters, &authority.read("leaf.key"), &authority.read("leaf.chain.pem")].concat();
    authority.write("all.pem", all);
    fs::set_permissions(authority.path("all.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(load(&authority.settings("all.pem", "all.pem")), Ok(vec![]));
}

#[test]
fn encrypted_keys_that_can_t_be_opened_say_why() {
    let authority = Authority::new();
    let mut settings = authority.issue_with("rsa", &["localhost"], "-newkey rsa:2048");
    authority.write("pass", "correct horse");
    authority.write("wrong", "battery staple\n");
    authority.write("empty", "\n");
    authority.openssl("pkcs8 -topk8 -in rsa.key -out encrypted.key -passout file:pass");
    settings.key = authority.path("encrypted.key");
    assert_eq!(problem(&settings), Problem::PassphraseMissing);
    settings.passphrase_file = Some(authority.path("wrong"));
    assert_eq!(problem(&settings), Problem::WrongPassphrase(authority.path("wrong")));
    settings.passphrase_file = Some(authority.path("empty"));
    let errors = load(&settings).unwrap_err();
    assert_eq!((&errors[0].path, &errors[0].problem), (&authority.path("empty"), &Problem::Empty));
    settings.passphrase_file = Some(authority.path("nowhere"));
    let errors = load(&settings).unwrap_err();
    assert_eq!(errors[0].path, authority.path("nowhere"));

    settings.passphrase_file = Some(authority.path("pass"));
    authority.openssl("pkcs8 -topk8 -in rsa.key -out encrypted.key -passout file:pass -v1 PBE-SHA1-3DES");
    assert_eq!(problem(&settings), Problem::UnsupportedEncryption);
    authority.openssl("rsa -traditional -aes128 -in rsa.key -out encrypted.key -passout file:pass");
    assert_eq!(problem(&settings), Problem::LegacyEncryption);
    let error = load(&settings).unwrap_err().remove(0).to_string();
    let remedy = format!("`openssl pkcs8 -topk8 -in {} -out NEW.pem`", settings.key.display());
    assert!(error.contains(&remedy), "{error}");
}

#[test]
fn files_that_are_no_certificate_or_key_say_what_they_are() {
    let authority = Authority::new();
    let good = authority.issue("leaf", &["localhost"]);
    authority.openssl("x509 -in leaf.pem -outform der -out leaf.der");
    authority.openssl("pkey -in leaf.key -outform der -out leaf.key.der");
    authority.write("empty", " \n");
    authority.write("text", "hello\n");
    authority.write("long", vec![b'x'; (1 << 20) + 1]);
    authority.write("damaged", authority.read("leaf.pem").replacen("MII", "M!I", 1));
    authority.write("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    authority.write("nokey", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    for (cert, expected) in [
        ("leaf.der", Problem::Der),
        ("empty", Problem::Empty),
        ("text", Problem::NothingIn(Sought::Certificate)),
        ("leaf.key", Problem::NothingIn(Sought::Certificate)),
        ("long", Problem::TooLong),
        ("damaged", Problem::BrokenPem),
        ("nowhere", Problem::Unreadable(std::io::ErrorKind::NotFound)),
        (".", Problem::Unreadable(std::io::ErrorKind::IsADirectory)),
    ] {
        assert_eq!(problem(&CertificateSettings { cert: authority.path(cert), ..good.clone() }), expected, "{cert}");
    }
    let nonsense = problem(&CertificateSettings { cert: authority.path("nonsense"), ..good.clone() });
    assert!(matches!(nonsense, Problem::BrokenCertificate(1, _)), "{nonsense:?}");
    for (key, expected) in [
        ("leaf.key.der", Problem::Der),
        ("empty", Problem::Empty),
        ("leaf.pem", Problem::NothingIn(Sought::Key)),
        ("nokey", Problem::UnsupportedKey),
        ("nowhere", Problem::Unreadable(std::io::ErrorKind::NotFound)),
    ] {
        assert_eq!(problem(&CertificateSettings { key: authority.path(key), ..good.clone() }), expected, "{key}");
    }
}

#[test]
fn a_key_of_another_certificate_and_a_wrong_order_are_told_apart() {
    let authority = Authority::new();
    let good = authority.issue("leaf", &["localhost"]);
    authority.issue("other", &["other.test"]);
    let settings = CertificateSettings { key: authority.path("other.key"), ..good.clone() };
    assert_eq!(problem(&settings), Problem::KeyOfAnother(good.cert.clone()));

    let (leaf, intermediate, root) =
        (authority.read("leaf.pem"), authority.read("intermediate.pem"), authority.read("root.pem"));
    for (chain, expected) in [
        (intermediate.clone() + &leaf, Problem::LeafNotFirst(2)),
        (root.clone() + &intermediate + &leaf, Problem::LeafNotFirst(3)),
        (leaf.clone() + &root, Problem::WrongOrder(2)),
        (leaf.clone() + &intermediate + &leaf, Problem::WrongOrder(3)),
    ] {
        authority.write("chain", chain);
        assert_eq!(problem(&authority.settings("chain", "leaf.key")), expected);
    }
    authority.write("chain", leaf + &intermediate + &root);
    assert_eq!(load(&authority.settings("chain", "leaf.key")), Ok(vec![]));
}

#[test]
fn a_certificate_out_of_its_time_is_refused_and_an_issuer_s_is_warned_of() {
    let authority = Authority::new();
    let settings = authority.issue("leaf", &["localhost"]);
    let at = |now| Certificates::load(vec![settings.clone()], now).map(|(_, warnings)| warnings);
    let now = SystemTime::now();
    let past = at(now - 2 * DAY).unwrap_err();
    assert!(matches!(past[0].problem, Problem::NotYetValid(_)), "{past:?}");
    let future = at(now + 11 * DAY).unwrap_err();
    assert!(matches!(future[0].problem, Problem::Expired(_)), "{future:?}");
    assert!(future[0].to_string().contains("expired at 20"), "{}", future[0]);

    authority.openssl(
        "x509 -req -in leaf.csr -CA intermediate.pem -CAkey intermediate.key -days 90 -extfile leaf.ext -out leaf.pem",
    );
    authority.write("leaf.chain.pem", authority.read("leaf.pem") + &authority.read("intermediate.pem"));
    assert_eq!(at(now + 40 * DAY), Ok(vec![Warning::IssuerNotValid(settings.cert.clone(), 2)]));
}

#[test]
fn what_works_only_for_some_is_warned_of() {
    let authority = Authority::new();
    let settings = authority.issue("leaf", &["localhost"]);
    let alone = authority.settings("leaf.pem", "leaf.key");
    assert_eq!(load(&alone), Ok(vec![Warning::NoIntermediate(alone.cert.clone())]));

    fs::set_permissions(&settings.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(load(&settings), Ok(vec![Warning::ReadableByAll(settings.key.clone())]));

    authority.openssl(&format!("req -x509 {EC} -nodes -keyout self.key -out self.pem -subj /CN=localhost -days 3"));
    let nameless = authority.settings("self.pem", "self.key");
    assert_eq!(load(&nameless), Ok(vec![Warning::NoNames(nameless.cert.clone())]));
    authority.openssl(&format!(
        "req -x509 {EC} -nodes -keyout self.key -out self.pem -subj /CN=x -days 3 -addext subjectAltName=IP:127.0.0.1"
    ));
    assert_eq!(load(&nameless), Ok(vec![]));
}

#[test]
fn all_errors_come_at_once() {
    let authority = Authority::new();
    let good = authority.issue("leaf", &["localhost"]);
    authority.write("empty", "");
    let settings = vec![
        good.clone(),
        authority.settings("empty", "nowhere"),
        CertificateSettings { key: authority.path("root.key"), ..good.clone() },
    ];
    let errors = Certificates::load(settings, SystemTime::now() + 20 * DAY).unwrap_err();
    let names: Vec<_> = errors.iter().map(|error| error.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["leaf.chain.pem", "empty", "nowhere", "root.key", "leaf.chain.pem"], "{errors:?}");
    let none = Certificates::load(vec![], SystemTime::now()).unwrap_err();
    assert_eq!(none[0].problem, Problem::NoneConfigured);
}

#[test]
fn status_tells_names_and_whole_days() {
    let authority = Authority::new();
    let settings = authority.issue("leaf", &["LocalHost", "*.localhost"]);
    let now = SystemTime::now();
    let (certificates, _) = Certificates::load(vec![settings.clone()], now).unwrap();
    let status = certificates.status(now).remove(0);
    assert_eq!((status.path, status.days_left), (settings.cert, 9));
    assert_eq!(status.names, ["localhost", "*.localhost"]);
    assert_eq!(certificates.status(status.not_after)[0].days_left, 0);
    assert_eq!(certificates.status(status.not_after + Duration::from_secs(1))[0].days_left, -1);
}

/// The certificate that a client sees.
fn shown(authority: &Authority, acceptor: &TlsAcceptor) -> Vec<u8> {
    let mut pair = Pair::new(&Arc::new(client_config(authority, &[&TLS13])), acceptor);
    pair.shake_hands();
    pair.client.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn replaced_files_are_taken_and_broken_ones_are_told_once() {
    let authority = Authority::new();
    let settings = authority.issue("leaf", &["localhost"]);
    // Later than all that is issued here.
    let now = SystemTime::now() + Duration::from_secs(60 * 60);
    let (certificates, _) = Certificates::load(vec![settings.clone()], now).unwrap();
    let certificates = Arc::new(certificates);
    let acceptor = TlsAcceptor::new(&TlsSettings::default(), Arc::clone(&certificates)).unwrap();
    let first = shown(&authority, &acceptor);
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged);

    // As a tool for certificates does it: the files get their names when they are whole, one after the other.
    authority.issue("next", &["localhost"]);
    fs::rename(authority.path("next.chain.pem"), &settings.cert).unwrap();
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged, "half of it may be still to come");
    fs::rename(authority.path("next.key"), &settings.key).unwrap();
    assert_eq!(certificates.reload_if_changed(now), Reload::Reloaded(vec![]));
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged);
    let second = shown(&authority, &acceptor);
    assert!(first != second);

    fs::write(&settings.cert, "garbage").unwrap();
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged);
    let refused = certificates.reload_if_changed(now);
    assert!(matches!(&refused, Reload::Refused(errors) if errors.len() == 1), "{refused:?}");
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged);
    assert!(matches!(certificates.reload(now), Reload::Refused(_)), "who asks is told again");
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged);
    assert!(shown(&authority, &acceptor) == second, "the one from before is shown on");

    fs::remove_file(&settings.cert).unwrap();
    assert_eq!(certificates.reload_if_changed(now), Reload::Unchanged);
    assert!(matches!(certificates.reload_if_changed(now), Reload::Refused(_)), "broken in another way");

    authority.issue("leaf", &["localhost"]);
    assert_eq!(certificates.reload_if_changed(now), Reload::Reloaded(vec![]));
    assert!(shown(&authority, &acceptor) != second);
    assert_eq!(certificates.reload(now), Reload::Reloaded(vec![]));
}

#[test]
fn a_swapped_link_is_followed() {
    let authority = Authority::new();
    for name in ["old", "new"] {
        authority.issue(name, &["localhost"]);
        fs::create_dir(authority.path(&format!("{name}.d"))).unwrap();
        fs::rename(authority.path(&format!("{name}.chain.pem")), authority.path(&format!("{name}.d/cert"))).unwrap();
        fs::rename(authority.path(&format!("{name}.key")), authority.path(&format!("{name}.d/key"))).unwrap();
    }
    symlink("old.d", authority.path("current")).unwrap();
    let settings = authority.settings("current/cert", "current/key");
    let now = SystemTime::now();
    let (certificates, _) = Certificates::load(vec![settings], now).unwrap();
    let certificates = Arc::new(certificates);
    let acceptor = TlsAcceptor::new(&TlsSettings::default(), Arc::clone(&certificates)).unwrap();
    let first = shown(&authority, &acceptor);
    symlink("new.d", authority.path("next")).unwrap();
    fs::rename(authority.path("next"), authority.path("current")).unwrap();
    assert_eq!(certificates.reload_if_changed(now), Reload::Reloaded(vec![]));
    assert!(shown(&authority, &acceptor) != first);
}
