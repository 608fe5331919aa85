//! One key out of a session: the reader, beside PHP's own `unserialize` of the same bytes.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ROUNDS, Row};
use crate::Programs;
use crate::client::wrong;
use crate::pinning::SERVER_CORE;
use crate::statistics::take_turns;
use crate::table::{Reach, Table};

const PICKS: &str = "20000";
const USER: &str = "1234567";

/// A shop's session as `php_serialize` writes it: a cart, flashes, a token, what was seen last; 10 KiB of small values and texts.
const SESSION: &str = "
$session = ['_token' => str_repeat('t', 40), 'locale' => 'en_GB', 'flash' => ['old' => [], 'new' => ['status']], 'cart' => [], 'seen' => []];
for ($n = 1; strlen(serialize($session)) < 10100; $n++) {
    $session['cart'][\"item-$n\"] = ['id' => $n, 'sku' => \"SKU-$n\", 'price' => $n * 1.25, 'quantity' => 2, 'gift' => false,
        'title' => \"A thing that somebody wants, number $n\", 'options' => ['size' => 'L', 'colour' => 'green']];
    $session['seen'][] = \"https://shop.example/things/$n?from=list\";
}
$session['auth'] = ['user' => ['id' => 1234567, 'name' => 'alice', 'roles' => ['customer']], 'since' => 1700000000];
echo serialize($session);";

/// PHP reads the bytes once and times its loop itself.
const UNSERIALIZE: &str = "
$data = stream_get_contents(STDIN);
for ($n = 0; $n < 1000; $n++) { $user = unserialize($data)['auth']['user']['id']; }
$start = hrtime(true);
for ($n = 0; $n < $argv[1]; $n++) { $user = unserialize($data)['auth']['user']['id']; }
echo intdiv(hrtime(true) - $start, $argv[1]), \"\\nauth.user.id: Some(Int($user))\\n\";";

/// The row.
pub const ROW: Row = Row { name: "session", doing: "one key out of a session of 10 KiB", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let data = run(&programs.php, ["-r", SESSION], b"")?;
    if !(10_000..11_000).contains(&data.len()) {
        return Err(wrong(format!("PHP's session has {} bytes", data.len())));
    }
    let (theirs, ours) = take_turns(
        ROUNDS,
        || nanoseconds(&run(&programs.php, ["-r", UNSERIALIZE, "--", PICKS], &data)?),
        || nanoseconds(&run(&programs.pick, ["--rounds", PICKS, "auth.user.id"], &data)?),
    )?;
    table.add(
        "one key out of a PHP session of 10 KiB",
        "ns",
        &ours,
        ("PHP's `unserialize`", &theirs),
        Reach::TimesFloor(0.2),
    );
    Ok(())
}

/// Runs a program on the core of the servers, and returns what it printed.
fn run<const N: usize>(program: &Path, arguments: [&str; N], input: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new("taskset")
        .args(["--cpu-list", &SERVER_CORE.to_string()])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Both read all of it before they print.
    child.stdin.take().ok_or_else(|| wrong("no standard input"))?.write_all(input)?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(wrong(format!("{}: {}", program.display(), output.status)))
    }
}

/// The first line is how long one took, the second what was found.
fn nanoseconds(output: &[u8]) -> io::Result<f64> {
    let text = String::from_utf8_lossy(output);
    let expected = format!("auth.user.id: Some(Int({USER}))");
    match text.lines().collect::<Vec<_>>().as_slice() {
        [nanoseconds, found] if *found == expected => {
            nanoseconds.parse().map_err(|error| wrong(format!("{error}: {text:?}")))
        }
        _ => Err(wrong(format!("instead of the user's id: {text:?}"))),
    }
}
