//! Runs `wootz doctor` and reads what it says, and the ways of a browser that work but for what a test breaks.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::proxies::{Proxy, nginx};
use super::{Setup, Wootz, wootz};

/// A wootz that says what cookie and message it got.
pub fn echo() -> Wootz {
    Setup::sh("echo \"$HTTP_COOKIE|$(cat)\"").start()
}

/// Runs the doctor in a directory, which is where it looks for a control socket.
pub fn doctor(directory: &Path, url: &str, arguments: &[&str]) -> Output {
    wootz(directory).args(["doctor", url]).args(arguments).output().expect("the wootz binary")
}

/// What the doctor says as JSON, and its exit code with it.
pub fn examine(directory: &Path, url: &str, arguments: &[&str]) -> Value {
    let output = doctor(directory, url, &[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}: {:?}", output.stderr));
    assert_eq!(output.status.code(), Some(if report["works"] == true { 0 } else { 1 }), "{report}");
    report
}

/// The report of a way that has to be broken in this way.
pub fn broken(directory: &Path, url: &str, arguments: &[&str], name: &str) -> Value {
    let report = examine(directory, url, arguments);
    assert_eq!(report["fault"]["name"], name, "{report:#}");
    let failed: Vec<&Value> =
        report["hops"].as_array().expect("hops").iter().filter(|hop| hop["ok"] == false).collect();
    assert_eq!(failed.len(), 1, "{report:#}");
    report
}

/// Whether a part of the fault's text has this.
pub fn says(report: &Value, part: &str, text: &str) {
    let said = match &report["fault"][part] {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    assert!(said.contains(text), "{part} does not say {text:?}: {report:#}");
}

/// The URL of a plain port.
pub fn ws(address: SocketAddr) -> String {
    format!("ws://{address}/")
}

/// The same port under a name that certificates can have.
pub fn wss(address: SocketAddr) -> String {
    format!("wss://localhost:{}/", address.port())
}

/// nginx with a right rule for a back end, but for what is added to it.
pub fn nginx_to(back: SocketAddr, http: &str, listen: &str, more: &str) -> Proxy {
    let rule = format!(
        "location / {{\nproxy_pass http://{back};\nproxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection upgrade;\nproxy_set_header Host $http_host;\n{more}\n}}"
    );
    nginx(http, listen, &rule)
}

/// The same behind TLS.
pub fn tls_nginx(back: SocketAddr, key: &Path, certificate: &Path) -> Proxy {
    let lines = format!(
        "ssl_protocols TLSv1.2 TLSv1.3;\nssl_certificate {};\nssl_certificate_key {};",
        certificate.display(),
        key.display()
    );
    nginx_to(back, &lines, "ssl", "")
}
