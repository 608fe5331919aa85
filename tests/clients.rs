//! Clients that others wrote, each with its own keepalive: Python `websockets` and `aiohttp`, npm `ws`.

mod support;

use std::process::Command;

use support::{Setup, Wootz, installed, repository, run};

/// An application that answers with the message.
fn echo() -> Wootz {
    Setup::command(&["cat"]).settings("limits.ping_interval = \"200ms\"\nlimits.pong_timeout = \"10s\"").start()
}

/// Runs a client against the server. It prints `ready` in its own time and must end with success.
fn client(program: &str, script: &str) {
    let wootz = echo();
    let printed = run(Command::new(installed(program))
        .arg(repository().join(script))
        .arg(format!("ws://{}/", wootz.address()))
        .arg(wootz.global_pipe()));
    assert_eq!(printed.trim_end(), "all right", "{script}");
}

#[test]
fn python_websockets_talks_keeps_alive_and_closes() {
    client("target/tests/venv/bin/python", "tests/python/with_websockets.py");
}

#[test]
fn python_aiohttp_talks_keeps_alive_and_closes() {
    client("target/tests/venv/bin/python", "tests/python/with_aiohttp.py");
}

#[test]
fn npm_ws_talks_keeps_alive_and_closes() {
    installed("tests/node/node_modules/ws");
    let wootz = echo();
    let printed = run(Command::new("node")
        .arg(repository().join("tests/node/with_ws.js"))
        .arg(format!("ws://{}/", wootz.address()))
        .arg(wootz.global_pipe()));
    assert_eq!(printed.trim_end(), "all right");
}
