//! Many connections, each with one message under way: whether the pool is kept as busy as its callers could keep it.
//!
//! The pool has a core of its own, because its speed is the limit to be reached; whoever calls it has the other.

use std::io;
use std::path::Path;

use super::{Row, serve_pool};
use crate::Programs;
use crate::asking::{Ask, Talk, all_at_once};
use crate::client::Single;
use crate::fastcgi::{Bare, Connections};
use crate::http;
use crate::pinning::{CLIENT_CORE, SERVER_CORE};
use crate::pool::Pool;
use crate::server::{Launch, Listens, Server};
use crate::statistics::{Rounds, take_turns};
use crate::table::{Reach, Table};

const CONNECTIONS: usize = 64;
/// Many short rounds: whatever else the machine does then falls on both contestants alike.
const ROUNDS: usize = 21;
const CALLS: usize = 2_000;
const URI: &str = "/hello?x=1";
const CODE: &str = "echo 'hello ', $_SERVER['REQUEST_URI'];";
const ANSWER: &[u8] = b"hello /hello?x=1";

/// The row of the pool's speed.
pub const ROW: Row = Row { name: "fpm-many", doing: "php-fpm for 64 connections at once", measure };
/// The row of the processor time in front of it.
pub const NGINX_ROW: Row = Row { name: "nginx", doing: "processor time in front of php-fpm", measure: measure_nginx };

fn measure(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let pool = Pool::start(&programs.php_fpm, SERVER_CORE, CODE)?;
    let wootz = serve_pool(programs, CLIENT_CORE, &[], &pool)?;
    let mut talks = talks(&wootz)?;
    let bare = |_| Bare::new(&pool.socket(), &pool.script(), Connections::PerCall, URI, ANSWER);
    let mut bares: Vec<_> = (0..CONNECTIONS).map(bare).collect();
    let (theirs, ours) = take_turns(ROUNDS, || all_at_once(&mut bares, CALLS), || all_at_once(&mut talks, CALLS))?;
    let what = "message → php-fpm → reply: calls per second, 64 connections, 4 workers";
    table.add(what, "/s", &ours, ("bare FastCGI client, 64 threads", &theirs), Reach::TimesPeer(0.9));
    Ok(())
}

fn measure_nginx(programs: &Programs, table: &mut Table) -> io::Result<()> {
    let pool = Pool::start(&programs.php_fpm, SERVER_CORE, CODE)?;
    let (wootz, nginx) = (serve_pool(programs, CLIENT_CORE, &[], &pool)?, nginx(&programs.nginx, &pool)?);
    let mut talks = talks(&wootz)?;
    let request = |_| http::Bare::connect(nginx.address, URI, ANSWER);
    let mut requests = (0..CONNECTIONS).map(request).collect::<io::Result<Vec<_>>>()?;
    let (theirs, ours) =
        take_turns(ROUNDS, || per_cpu_second(&nginx, &mut requests), || per_cpu_second(&wootz, &mut talks))?;
    let micros = |per_second: &Rounds| 1e6 / per_second.median();
    table.note(format!("nginx: {:.1} µs of CPU per call, nginx {:.1}.", micros(&ours), micros(&theirs)));
    let what = "calls of php-fpm per CPU second of the front server, 64 connections";
    table.add(what, "/s", &ours, ("nginx, HTTP, kept connections", &theirs), Reach::TimesPeer(1.2));
    Ok(())
}

fn per_cpu_second<A: Ask + Send>(server: &Server, askers: &mut [A]) -> io::Result<f64> {
    let before = server.family_cpu()?;
    all_at_once(askers, CALLS)?;
    Ok(CALLS as f64 / (server.family_cpu()? - before).as_secs_f64())
}

fn talks(wootz: &Server) -> io::Result<Vec<Talk>> {
    (0..CONNECTIONS).map(|_| Ok(Talk::new(Single::open_as_browser(wootz.address)?, URI, ANSWER))).collect()
}

/// As Debian sets it up, but with one worker and no access log; wootz has one shard and none either.
fn nginx(program: &Path, pool: &Pool) -> io::Result<Server> {
    let (socket, script) = (pool.socket(), pool.script());
    let (socket, script) = (socket.display(), script.display());
    let configuration = format!(
        "daemon off;\nworker_processes 1;\npid {{directory}}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off;\nkeepalive_requests 10000000;\nfastcgi_temp_path {{directory}}/fastcgi;\n\
         client_body_temp_path {{directory}}/body;\nproxy_temp_path {{directory}}/proxy;\n\
         uwsgi_temp_path {{directory}}/uwsgi;\nscgi_temp_path {{directory}}/scgi;\n\
         server {{ listen {{address}}; location / {{\n\
         include /etc/nginx/fastcgi_params;\nfastcgi_param SCRIPT_FILENAME {script};\nfastcgi_pass unix:{socket};\n\
         }} }} }}\n"
    );
    Server::launch(&Launch {
        program,
        arguments: &["-e", "stderr", "-p", "{directory}", "-c", "{directory}/nginx.conf"],
        core: CLIENT_CORE,
        files: &[("nginx.conf", &configuration)],
        listens: Listens::Tcp,
    })
}
