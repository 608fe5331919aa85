//! The console page in a real browser: Debian's Chromium, as a phone in the dark.

mod support;

use std::process::Command;

use support::{Setup, installed, repository, run};

#[test]
fn console_page_in_chromium_connects_sends_and_shows_replies_pushes_and_errors() {
    installed("tests/node/node_modules/playwright-core");
    let root = repository();
    let wootz = Setup::command(&["sh", "examples/sh/application.sh"])
        .setting("application.directory", format!("{:?}", root.to_str().expect("UTF-8")))
        .dev()
        .start();
    let picture = wootz.path("console.png");
    let printed = run(Command::new("node")
        .arg(root.join("tests/node/console.js"))
        .arg(format!("http://{}/", wootz.address()))
        .arg(wootz.global_pipe())
        .arg(picture));
    assert_eq!(printed.trim_end(), "all right");
}

#[test]
fn functions_of_the_console_page_pass_their_own_tests() {
    run(Command::new("node").arg("--test").arg(repository().join("crates/server/src/console/console.test.mjs")));
}
