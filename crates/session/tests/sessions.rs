//! Real PHP writes sessions of random values, reads them back and says what lies where: the reader must say the same.
//!
//! Seeds are fixed, so each run compares the same sessions. What PHP reads as something, the reader must never read as something else;
//! what PHP can't read is no session here either.

use std::process::Command;

use wootz_session::serialize::{KeyPath, Serializer, Value, find};

const FORMATS: [(&str, Serializer); 3] =
    [("php", Serializer::Php), ("php_serialize", Serializer::PhpSerialize), ("php_binary", Serializer::PhpBinary)];

/// A session as PHP wrote it, and what PHP says of it: `None` if it can't be read.
struct Session {
    data: Vec<u8>,
    values: Option<Vec<(String, String)>>,
}

/// Runs PHP once.
fn sessions(handler: &str, seed: u32, count: u32, what: &str) -> Vec<Session> {
    let directory = tempfile::tempdir().expect("a directory");
    let handler = format!("session.serialize_handler={handler}");
    let settings = [
        &handler,
        "session.use_cookies=0",
        "session.cache_limiter=",
        "session.use_strict_mode=0",
        "session.gc_probability=0",
        "session.upload_progress.enabled=0",
        "error_reporting=8191",
        "display_errors=stderr",
        "log_errors=0",
        "memory_limit=512M",
    ];
    let output = Command::new("php")
        .args(settings.iter().flat_map(|setting| ["-d", setting]))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/php/sessions.php"))
        .arg(directory.path())
        .args([&seed.to_string(), &count.to_string(), what])
        .output()
        .expect("php runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "php: {}: {errors}", output.status);
    let mut sessions: Vec<Session> = Vec::new();
    for line in String::from_utf8(output.stdout).expect("hexadecimal digits").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match (fields.as_slice(), sessions.last_mut()) {
            (["session", data], _) => sessions.push(Session { data: bytes(data), values: Some(Vec::new()) }),
            (["refused"], Some(session)) => session.values = None,
            (["at", path, kind, value], Some(Session { values: Some(values), .. })) => {
                let path = String::from_utf8(bytes(path)).expect("paths are text");
                values.push((path, format!("{kind} {value}")));
            }
            _ => panic!("PHP said {line:?}: {errors}"),
        }
    }
    assert_eq!(sessions.len(), count as usize, "{errors}");
    sessions
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits")).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In the words of `sessions.php`.
fn described(value: Option<&Value<'_>>) -> String {
    let (kind, value) = match value {
        None => ("nothing", Vec::new()),
        Some(Value::Null) => ("null", Vec::new()),
        Some(Value::Bool(value)) => ("bool", vec![b'0' + u8::from(*value)]),
        Some(Value::Int(value)) => ("int", value.to_string().into_bytes()),
        Some(Value::Float(written)) => {
            let text = std::str::from_utf8(written).expect("ASCII");
            let value: f64 = text.parse().expect("a float");
            let bits = if value.is_nan() { "NAN".to_owned() } else { hexadecimal(&value.to_be_bytes()) };
            ("float", bits.into_bytes())
        }
        Some(Value::Bytes(bytes)) => ("bytes", bytes.to_vec()),
        Some(Value::Enum(case)) => ("enum", case.to_vec()),
        Some(Value::Array) => ("array", Vec::new()),
        Some(Value::Object) => ("object", Vec::new()),
        Some(Value::Unresolved) => ("unresolved", Vec::new()),
    };
    format!("{kind} {}", hexadecimal(&value))
}

/// What the reader says at the paths, or why it can't be read.
fn read(data: &[u8], serializer: Serializer, values: &[(String, String)]) -> Result<Vec<String>, String> {
    let paths: Vec<KeyPath> = values.iter().map(|(path, _)| KeyPath::parse(path).expect("a path")).collect();
    let found = find(data, serializer, &paths).map_err(|error| error.to_string())?;
    Ok(found.values().map(described).collect())
}

#[test]
fn every_value_of_a_session_that_php_wrote_is_what_php_says_it_is() {
    let (mut compared, mut refused) = (0, 0);
    for (handler, serializer) in FORMATS {
        for session in sessions(handler, 1, 450, "whole") {
            // PHP can't read some of its own sessions: where objects in classes of their own format are shared.
            let Some(values) = session.values else {
                refused += 1;
                continue;
            };
            for serializer in [serializer, Serializer::Auto] {
                let found = match read(&session.data, serializer, &values) {
                    Ok(found) => found,
                    // A first name of 32 bytes or more looks like text.
                    Err(error)
                        if serializer == Serializer::Auto && session.data[0] >= 32 && handler == "php_binary" =>
                    {
                        assert!(error.contains("serializer has to be named"), "{error}");
                        continue;
                    }
                    Err(error) => panic!("{handler}: {error}: {}", session.data.escape_ascii()),
                };
                for ((path, said), found) in values.iter().zip(found) {
                    assert_eq!(&found, said, "{handler}, {path}: {}", session.data.escape_ascii());
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} values compared, {refused} sessions that PHP itself refused");
    assert!(compared > 20_000 && refused < 60, "{compared} compared, {refused} refused");
}

#[test]
fn a_session_that_was_changed_is_refused_or_read_as_php_reads_it() {
    let (mut both, mut neither, mut stricter, mut laxer) = (0, 0, 0, 0);
    for (handler, serializer) in FORMATS {
        for session in sessions(handler, 2, 500, "changed") {
            let said = session.values.as_deref();
            match (said, read(&session.data, serializer, said.unwrap_or_default())) {
                (Some(values), Ok(found)) => {
                    both += 1;
                    // What a class has a default for, and what it does with a content that was changed, only PHP knows.
                    let unknown = |found: &str| found.starts_with("nothing") || found.starts_with("unresolved");
                    let known = values.iter().zip(found).filter(|(_, found)| !unknown(found));
                    for ((path, said), found) in known {
                        assert_eq!(&found, said, "{handler}, {path}: {}", session.data.escape_ascii());
                    }
                }
                (Some(_), Err(error)) => {
                    stricter += 1;
                    // What follows the one array of php_serialize, PHP 8.2 does not look at.
                    assert!(error.contains("the end"), "{handler}: {error}: {}", session.data.escape_ascii());
                }
                // A class or an enum case that is not there, a date that is none: only PHP knows.
                (None, Ok(_)) => laxer += 1,
                (None, Err(_)) => neither += 1,
            }
        }
    }
    println!("{both} read by both, {neither} by neither, {stricter} by PHP only, {laxer} by the reader only");
    assert!(both > 200 && neither > 500 && laxer < neither / 10, "{both} both, {neither} neither, {laxer} laxer");
}
