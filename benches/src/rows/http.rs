//! One message after another, each a request to an HTTP server: what the way through the server adds to it.

use std::io;

use super::{Row, serve_runner};
use crate::Programs;
use crate::asking::{Ask as _, Talk};
use crate::client::Single;
use crate::http::Bare;
use crate::pinning::SERVER_CORE;
use crate::server::{Launch, Listens, Server};
use crate::statistics::call_by_call;
use crate::table::{Reach, Table};

const CALLS: usize = 3_000;
const URI: &str = "/hello?x=1";
const ANSWER: &[u8] = b"hello /hello?x=1";
const NODE: &str = "
require('http').createServer((request, response) => {
    request.resume();
    request.on('end', () => response.end(`hello ${request.url}`));
}).listen({port}, '127.0.0.1');
";

/// The row.
pub const ROW: Row = Row { name: "http", doing: "a Node server for each message", measure };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let node = Server::launch(&Launch {
        program: &programs.node,
        arguments: &["{directory}/server.js"],
        core: SERVER_CORE,
        files: &[("server.js", NODE)],
        listens: Listens::Tcp,
    })?;
    let wootz = serve_runner(programs, SERVER_CORE, &[], &["--http", &format!("http://{}", node.address)])?;
    let mut talk = Talk::new(Single::open_as_browser(wootz.address)?, URI, ANSWER);
    let mut bare = Bare::connect_as_proxy(node.address, URI, ANSWER)?;
    let [theirs, ours] = call_by_call(CALLS, [&mut || bare.ask(), &mut || talk.ask()])?;
    let what = "message → `http` (Node) → reply: median";
    table.add(what, "µs", &ours, ("bare HTTP client", &theirs), Reach::MoreThanFloor(80.0));
    Ok(())
}
