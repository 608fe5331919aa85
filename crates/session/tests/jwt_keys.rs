//! Key files: what is taken, what is refused and why, and how new ones come into force.

mod jwt;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jwt::{Made, load, now};
use wootz_session::jwt::{JwtSettings, KeyError, KeySource, Rejected, Reload, Verifier};

/// Replaces a file as careful people do: at once.
fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("written");
    fs::rename(&new, path).expect("replaced");
}

fn errors(settings: JwtSettings) -> Vec<KeyError> {
    Verifier::load(settings).expect_err("a mistake")
}

/// The one mistake in these settings, as text.
fn error(settings: JwtSettings) -> String {
    let errors = errors(settings);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].to_string()
}

#[test]
fn each_mistake_in_a_key_file_is_named_with_its_remedy() {
    let made = Made::new();
    fs::write(made.path("empty"), " \n").expect("written");
    fs::write(made.path("long"), vec![b'x'; 64 * 1024 + 1]).expect("written");
    fs::write(made.path("short"), "x".repeat(31) + "\n").expect("written");
    let two = fs::read_to_string(made.path("rsa.pem")).expect("a key")
        + &fs::read_to_string(made.path("ec.pem")).expect("a key");
    fs::write(made.path("two.pem"), two).expect("written");
    let cut = fs::read_to_string(made.path("rsa.pem")).expect("a key");
    fs::write(made.path("cut.pem"), &cut[..cut.len() / 2]).expect("written");
    fs::write(made.path("garbage.pem"), "-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----\n")
        .expect("written");
    fs::write(made.path("parameters.pem"), "-----BEGIN EC PARAMETERS-----\nAQID\n-----END EC PARAMETERS-----\n")
        .expect("written");
    let cases = [
        ("missing", "cannot be read"),
        (".", "is no regular file"),
        ("empty", "is empty"),
        ("long", "is longer than 65536 bytes"),
        ("short", "holds a secret of 31 bytes"),
        ("two.pem", "holds 2 keys; give each a file of its own"),
        ("cut.pem", "is PEM that is damaged"),
        ("garbage.pem", "is PEM that is damaged"),
        ("parameters.pem", "holds no key that fits"),
        ("p384.pem", "holds no key that fits"),
        ("k256.pem", "holds no key that fits"),
        ("small.pem", "holds an RSA key that has not 2048 to 8192 bits"),
        ("certificate.pem", "holds a certificate; give its key: openssl x509"),
        ("jwks.json", "belongs into identity.jwt.jwks_file"),
        ("rsa_private.pem", "holds a private key"),
        ("rsa_private_traditional.pem", "holds a private key"),
        ("rsa_private_encrypted.pem", "holds a private key"),
        ("ec_private.pem", "holds a private key"),
        ("ec_private_traditional.pem", "holds a private key"),
        ("ed_private.pem", "holds a private key"),
    ];
    for (file, reason) in cases {
        let text = error(made.files(&[file]));
        let path = made.path(file).display().to_string();
        assert!(text.starts_with("identity.jwt.keys: ") && text.contains(&path) && text.contains(reason), "{text}");
    }
}

#[test]
fn all_mistakes_are_said_at_once() {
    let made = Made::new();
    let settings = JwtSettings {
        user_claim: String::new(),
        jwks_file: Some(made.path("rsa.pem")),
        ..made.files(&["missing", "rsa_private.pem", "ed.pem", "bare.txt"])
    };
    let found: Vec<_> = errors(settings).into_iter().map(|error| (error.setting, error.file)).collect();
    let expected = [
        ("identity.jwt.user_claim", None),
        ("identity.jwt.keys", Some(made.path("missing"))),
        ("identity.jwt.keys", Some(made.path("rsa_private.pem"))),
        ("identity.jwt.keys", Some(made.path("bare.txt"))),
        ("identity.jwt.jwks_file", Some(made.path("rsa.pem"))),
    ];
    assert_eq!(found, expected);
    let none = error(JwtSettings::default());
    assert_eq!(none, "identity.jwt.keys: no key is given; name a key file here or a JWKS in identity.jwt.jwks_file");
}

#[test]
fn a_public_key_is_not_taken_as_a_secret_in_any_form() {
    let made = Made::new();
    let secret = |file: &str| JwtSettings { keys: vec![KeySource::Secret(made.path(file))], ..JwtSettings::default() };
    for file in ["rsa.der", "rsa_pkcs1.der", "ec.der", "ed.der", "rsa.ssh", "ec.ssh", "ed.ssh", "bare.txt"] {
        for settings in [made.files(&[file]), secret(file)] {
            let text = error(settings);
            assert!(text.contains("would let everybody sign"), "{file}: {text}");
        }
    }
    for file in ["rsa.pem", "rsa_pkcs1.pem", "ec.pem", "ed.pem"] {
        let text = error(secret(file));
        assert!(text.contains("leave out the prefix HS256:"), "{file}: {text}");
    }
    assert!(error(secret("rsa_private.pem")).contains("holds a private key"));
    assert!(error(secret("jwks.json")).contains("belongs into identity.jwt.jwks_file"));
}

#[test]
fn a_source_says_by_its_prefix_that_it_is_a_secret() {
    assert_eq!(KeySource::parse("/etc/key.pem"), KeySource::File("/etc/key.pem".into()));
    assert_eq!(KeySource::parse("HS256:/etc/key"), KeySource::Secret("/etc/key".into()));
    assert_eq!(KeySource::parse("HS256:/etc/key").path(), Path::new("/etc/key"));
    let made = Made::new();
    let source = KeySource::parse(&format!("HS256:{}", made.path("secret").display()));
    let verifier = load(JwtSettings { keys: vec![source], audience: "wootz".to_owned(), ..JwtSettings::default() });
    assert!(verifier.verify(made.token("good HS256"), now()).is_ok());
}

#[test]
fn a_line_break_ends_a_text_and_belongs_to_bytes() {
    let made = Made::new();
    let signed_with = |secret: &[u8]| {
        let claims = serde_json::json!({"sub": "42", "exp": jwt::NOW + 60, "aud": "wootz"});
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
    };
    let text = "a text as a secret, without an end of its line";
    let bytes = [&[0xff; 40][..], b"\n"].concat();
    for (content, secret) in [
        (text.as_bytes().to_vec(), text.as_bytes()),
        (format!("{text}\n").into_bytes(), text.as_bytes()),
        (format!("{text}\r\n").into_bytes(), text.as_bytes()),
        (bytes.clone(), &bytes[..]),
    ] {
        fs::write(made.path("given"), &content).expect("written");
        let verifier = load(made.files(&["given"]));
        assert!(verifier.verify(&signed_with(secret), now()).is_ok(), "{}", String::from_utf8_lossy(&content));
    }
}

#[test]
fn each_mistake_in_a_set_is_named() {
    let made = Made::new();
    fs::write(made.path("list.json"), "[]").expect("written");
    fs::write(made.path("one.json"), r#"{"kty":"oct","k":"AAAA"}"#).expect("written");
    fs::write(made.path("twice.json"), r#"{"keys":[],"keys":[]}"#).expect("written");
    let key = r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    fs::write(made.path("many.json"), format!("{{\"keys\":[{}]}}", vec![key; 65].join(","))).expect("written");
    let cases = [
        ("missing.json", "cannot be read"),
        ("rsa.pem", "is no JWKS (is not valid JSON)"),
        ("list.json", "is no JWKS (is not a JSON object)"),
        ("one.json", "is no JWKS (it has no array \"keys\")"),
        ("twice.json", "is no JWKS (has a name twice in one object)"),
        ("jwks_empty.json", "holds no key that fits; RSA"),
        ("jwks_unusable.json", "1 (kid \"encrypts\"): its use is not sig; 2 (kid \"pss\"): its alg is not"),
        ("jwks_private.json", "key 2 (kid \"leaked\") of it holds a private key"),
        ("jwks_short.json", "key 1 (kid \"h\") of it is a secret of 5 bytes"),
        ("many.json", "makes it 65 keys; at most 64 are kept"),
    ];
    for (file, reason) in cases {
        let text = error(made.set(file));
        assert!(text.starts_with("identity.jwt.jwks_file: ") && text.contains(file) && text.contains(reason), "{text}");
    }
}

#[test]
fn no_error_and_no_debug_text_holds_a_secret() {
    let made = Made::new();
    fs::write(made.path("short"), "hunter2").expect("written");
    let text = format!("{:?}", errors(made.files(&["short"])));
    assert!(!text.contains("hunter2"), "{text}");
    let text = format!("{:?}", made.by_files());
    assert!(!text.contains("a secret of the site"), "{text}");
}

#[test]
fn new_keys_come_into_force_when_their_files_change() {
    let made = Made::new();
    let verifier = load(made.files(&["rsa.pem", "secret"]));
    let start = Instant::now();
    let after = |seconds: u64| start + Duration::from_secs(seconds);
    assert!(matches!(verifier.reload_if_changed(start), Reload::Unchanged));
    replace(&made.path("rsa.pem"), fs::read(made.path("other.pem")).expect("a key"));
    assert!(matches!(verifier.reload_if_changed(start + Duration::from_millis(999)), Reload::Unchanged), "too early");
    assert!(verifier.verify(made.token("good RS256"), now()).is_ok());
    assert!(matches!(verifier.reload_if_changed(after(1)), Reload::Reloaded));
    assert_eq!(verifier.verify(made.token("good RS256"), now()), Err(Rejected::Signature));
    assert!(verifier.verify(made.token("other key RS256"), now()).is_ok());
    assert!(verifier.verify(made.token("good HS256"), now()).is_ok(), "the other file is as it was");
    assert!(matches!(verifier.reload_if_changed(after(2)), Reload::Unchanged));
}

#[test]
fn a_set_is_read_anew_also_through_a_link_that_is_turned() {
    let made = Made::new();
    let link = made.path("current.json");
    std::os::unix::fs::symlink(made.path("jwks.json"), &link).expect("a link");
    let verifier = load(made.set("current.json"));
    assert!(verifier.verify(made.token("kid RS256"), now()).is_ok());
    let other = made.path("next.json");
    std::os::unix::fs::symlink(made.path("jwks_other.json"), &other).expect("a link");
    fs::rename(&other, &link).expect("turned");
    assert!(matches!(verifier.reload_if_changed(Instant::now()), Reload::Reloaded));
    assert_eq!(verifier.verify(made.token("kid RS256"), now()), Err(Rejected::Signature));
    assert!(verifier.verify(made.token("other key of this kid RS256"), now()).is_ok());
}

#[test]
fn broken_new_keys_are_said_once_and_the_old_ones_stay() {
    let made = Made::new();
    let verifier = load(made.files(&["rsa.pem", "secret"]));
    let works = |why: &str| assert!(verifier.verify(made.token("good RS256"), now()).is_ok(), "{why}");
    let good = fs::read(made.path("rsa.pem")).expect("a key");
    let mut at = Instant::now();
    let mut look = || {
        at += Duration::from_secs(1);
        verifier.reload_if_changed(at)
    };
    replace(&made.path("rsa.pem"), "-----BEGIN PUBLIC KEY-----\n");
    match look() {
        Reload::Broken(errors) => {
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].file, Some(made.path("rsa.pem")));
        }
        other => panic!("{other:?}"),
    }
    works("broken");
    assert!(matches!(look(), Reload::Unchanged), "said once");
    // Another change that is broken is another mistake.
    fs::remove_file(made.path("rsa.pem")).expect("removed");
    assert!(matches!(look(), Reload::Broken(_)));
    assert!(matches!(look(), Reload::Unchanged), "said once");
    works("gone");
    // On demand it is said again, to whoever asks.
    assert!(verifier.reload().is_err());
    assert!(matches!(look(), Reload::Unchanged));
    works("gone, and asked for");
    replace(&made.path("rsa.pem"), &good);
    assert!(matches!(look(), Reload::Reloaded));
    works("back");
}

#[test]
fn on_demand_keys_are_read_at_once() {
    let made = Made::new();
    let verifier = load(made.files(&["rsa.pem"]));
    let start = Instant::now();
    assert!(matches!(verifier.reload_if_changed(start), Reload::Unchanged));
    replace(&made.path("rsa.pem"), fs::read(made.path("other.pem")).expect("a key"));
    verifier.reload().expect("good keys");
    assert!(verifier.verify(made.token("other key RS256"), now()).is_ok());
    assert!(matches!(verifier.reload_if_changed(start + Duration::from_secs(1)), Reload::Unchanged));
}

#[test]
fn one_verifier_serves_many_threads_while_its_keys_change() {
    let made = Made::new();
    let verifier = load(made.files(&["rsa.pem"]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let old = verifier.verify(made.token("good RS256"), now());
                    assert!(matches!(old, Ok(_) | Err(Rejected::Signature)), "{old:?}");
                }
            });
        }
        replace(&made.path("rsa.pem"), fs::read(made.path("other.pem")).expect("a key"));
        verifier.reload().expect("good keys");
    });
    assert!(verifier.verify(made.token("other key RS256"), now()).is_ok());
}
