//! One connection, one message after another, each a run of PHP: what the way through the server adds to it.

use std::io;

use super::{Row, serve_pool};
use crate::Programs;
use crate::asking::{Ask as _, Talk};
use crate::client::Single;
use crate::fastcgi::{Bare, Connections};
use crate::pinning::SERVER_CORE;
use crate::pool::Pool;
use crate::statistics::call_by_call;
use crate::table::{Reach, Table};

const CALLS: usize = 3_000;
const URI: &str = "/hello?x=1";
const CODE: &str = "echo 'hello ', $_SERVER['REQUEST_URI'];";
const ANSWER: &[u8] = b"hello /hello?x=1";

/// The rows.
pub const ROW: Row = Row { name: "fpm", doing: "php-fpm for each message, one connection", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let pool = Pool::start(&programs.php_fpm, SERVER_CORE, CODE)?;
    let (socket, script) = (pool.socket(), pool.script());
    let rows = [
        ("message → php-fpm → reply: median, a FastCGI connection per call", Connections::PerCall, "0"),
        ("the same with a kept FastCGI connection", Connections::Kept, "1"),
    ];
    for (what, connections, keep) in rows {
        let keep = format!("application.fastcgi.keep={keep}");
        let wootz = serve_pool(programs, SERVER_CORE, &[&keep], &pool)?;
        let mut talk = Talk::new(Single::open_as_browser(wootz.address)?, URI, ANSWER);
        let mut bare = Bare::new(&socket, &script, connections, URI, ANSWER);
        let [theirs, ours] = call_by_call(CALLS, [&mut || bare.ask(), &mut || talk.ask()])?;
        table.add(what, "µs", &ours, ("bare FastCGI client", &theirs), Reach::MoreThanFloor(60.0));
    }
    Ok(())
}
