//! The table: every setting that wootz has, once. Its key, its flag, its variable, its line in `--help`, its place in
//! `wootz config --default` and in `docs/configuration.md` all come from its row here.
//!
//! A row says what may be written and why the default is what it is. What a value means to the server is `resolve`'s.

mod file;
mod load;
mod names;
mod render;
mod value;
mod way;

pub(crate) use file::FILE_NAME;
pub(crate) use load::{Dev, FileChoice, FileState, Override, Settings, Sources};
pub(crate) use render::{default_file, effective_file, help_list};
pub(crate) use value::{Kind, Zero};
pub(crate) use way::Way;

/// One setting.
#[derive(Debug)]
pub(crate) struct Row {
    /// Section and name, as in the file: `limits.max_message`.
    pub(crate) key: &'static str,
    /// What may be written.
    pub(crate) kind: Kind,
    /// The default, as it would stand in the file.
    pub(crate) default: &'static str,
    /// A flag of its own, for what a newcomer needs. All others have `--set`.
    pub(crate) flag: Option<Flag>,
    /// The ways of running calls that it means something to; empty: all.
    pub(crate) only: &'static [Way],
    /// The `identity.provider` that it means something to. `None`: all.
    pub(crate) provider: Option<&'static str>,
    /// What of it is never printed.
    pub(crate) secret: Secret,
    /// What it is, in one line.
    pub(crate) help: &'static str,
    /// Why the default is what it is.
    pub(crate) why: &'static str,
}

/// What of a setting's value is never printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secret {
    Nothing,
    /// User and password of a URL, and such parameters of it.
    Login,
    /// The texts of a table; their names are none.
    Texts,
}

/// A flag of a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Without its dashes.
    pub(crate) name: &'static str,
    /// What stands behind it.
    pub(crate) value: FlagValue,
    /// The `application.runner` that giving it asks for.
    pub(crate) runner: Option<&'static str>,
}

/// What stands behind a flag.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FlagValue {
    /// Nothing: the flag says `true`.
    True,
    /// Nothing: the flag says `false`.
    False,
    /// A value, called so in the help.
    Named(&'static str),
}

impl Row {
    /// `WOOTZ_LIMITS_MAX_MESSAGE` for `limits.max_message`.
    pub(crate) fn variable(&self) -> String {
        names::variable(self.key)
    }

    /// `limits` and `max_message` for `limits.max_message`.
    pub(crate) fn section_and_name(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').expect("every key of the table is in a section")
    }

    const fn flag(mut self, name: &'static str, value: FlagValue) -> Self {
        self.flag = Some(Flag { name, value, runner: None });
        self
    }

    const fn flag_of_runner(mut self, name: &'static str, value: FlagValue, runner: &'static str) -> Self {
        self.flag = Some(Flag { name, value, runner: Some(runner) });
        self
    }

    const fn only(mut self, ways: &'static [Way]) -> Self {
        self.only = ways;
        self
    }

    const fn secret(mut self, secret: Secret) -> Self {
        self.secret = secret;
        self
    }

    const fn provider(mut self, provider: &'static str) -> Self {
        self.provider = Some(provider);
        self
    }
}

const fn row(key: &'static str, kind: Kind, default: &'static str, help: &'static str, why: &'static str) -> Row {
    Row { key, kind, default, flag: None, only: &[], provider: None, secret: Secret::Nothing, help, why }
}

const UNLIMITED: Zero = Zero::Means("not limited");

const AS_LONG_AS_THE_CALL: Zero = Zero::Means("as long as the call may take");

/// Where wootz starts processes itself.
const OWN_PROCESSES: &[Way] = &[Way::FreshProcess, Way::KeptWorkers];

const FASTCGI: &[Way] = &[Way::FastCgiServer, Way::KeptWorkers];

const FASTCGI_SERVER: &[Way] = &[Way::FastCgiServer];

const KEPT_WORKERS: &[Way] = &[Way::KeptWorkers];

const HTTP: &[Way] = &[Way::HttpServer];

/// What each section is about, in the order of the file.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    ("listen", "Where browsers connect."),
    ("tls", "The certificates that browsers are shown, wss:// then."),
    ("identity", "Who may connect, and who they are."),
    ("identity.session", "The provider session: the site's own sessions, read and never written."),
    ("identity.jwt", "The provider jwt: signed tokens (RFC 7519)."),
    ("application", "What runs for each message."),
    ("application.fastcgi", "The runner fastcgi: a server such as php-fpm, or workers that wootz starts and keeps."),
    ("application.http", "The runner http: a server that runs already."),
    ("application.limits", "What calls may take, one by one and together."),
    ("pipes", "Named pipes: any program of this machine that writes to one pushes to browsers."),
    ("control", "The operator's API: pushes, status, connections, channels, events."),
    ("limits", "What connections may take, one by one and together."),
    ("log", "What is said on standard error."),
];

/// Every setting, in the order of the file.
pub(crate) static TABLE: &[Row] = &[
    row(
        "listen.address",
        Kind::Addresses,
        r#""127.0.0.1:8888""#,
        "Where browsers, or the proxy before them, connect: an address with a port (0 takes a free one), a Unix socket, the sockets of systemd's .socket unit, or a list of these. With tls.cert all but Unix sockets speak TLS, unless plain: stands before the address",
        "Only this machine: TLS belongs between wootz and the world, by [tls] or by a proxy.",
    )
    .flag("listen", FlagValue::Named("ADDR")),
    row(
        "listen.path",
        Kind::Text,
        r#""/""#,
        "Path that is served, with everything below it; others get 404",
        "Every path, since the application may look at it.",
    ),
    row(
        "listen.auto_port",
        Kind::Bool,
        "false",
        "Take the next free port where the wanted one is in use",
        "A proxy would not know the new port; in development it is welcome.",
    )
    .flag("auto-port", FlagValue::True),
    row(
        "listen.unix_mode",
        Kind::Mode,
        r#""0660""#,
        "Permission bits of Unix sockets in listen.address",
        "Who may open one is believed about browsers' addresses: its owner and its group, nobody else.",
    ),
    row(
        "listen.unix_group",
        Kind::Text,
        r#""""#,
        "Group of Unix sockets in listen.address, by name or number; empty keeps wootz's own",
        "Name the proxy's group, www-data for one, to let it connect.",
    ),
    row(
        "listen.proxy_protocol",
        Kind::Bool,
        "false",
        "Every connection begins with a PROXY header (version 1 or 2), taken from listen.trusted_proxies and on Unix sockets only; others are closed",
        "Proxies send none unless they are told to: send-proxy-v2 of HAProxy, proxy_protocol on of nginx's streams.",
    ),
    row(
        "listen.trusted_proxies",
        Kind::List("10.0.0.0/8"),
        "[]",
        "Proxies that are believed about the browser's address: addresses, networks, loopback (this machine) or private (local networks and this machine); who connects to a Unix socket is believed anyhow",
        "Anybody can write a header; name whom you run, and no network in which browsers are.",
    ),
    row(
        "listen.forwarded_header",
        Kind::Choice(&["either", "x-forwarded-for", "forwarded"]),
        r#""either""#,
        "Header field in which they tell it; either reads X-Forwarded-For, and Forwarded (RFC 7239) where a request has none, never a mix",
        "Nearly all proxies write X-Forwarded-For; name the other for one that writes only Forwarded, since it may hand on what a browser wrote into the first.",
    ),
    row(
        "listen.shards",
        Kind::Count(Zero::Means("one per core")),
        "0",
        "Threads that serve connections",
        "Each is single-threaded inside, so one per core uses the machine and no more.",
    ),
    row(
        "tls.cert",
        Kind::Files,
        r#""""#,
        "Certificate and behind it its chain, as PEM (fullchain.pem); of several the one is shown that names the host which the browser asks for, else the first; empty: no TLS. The files are looked at every 10 s, and on SIGHUP",
        "Only you have it.",
    )
    .flag("tls-cert", FlagValue::Named("FILE")),
    row(
        "tls.key",
        Kind::Files,
        r#""""#,
        "Private key as PEM, or one for each certificate in the same order",
        "Only you have it.",
    )
    .flag("tls-key", FlagValue::Named("FILE")),
    row(
        "tls.key_passphrase_file",
        Kind::Path,
        r#""""#,
        "File with the passphrase of encrypted keys",
        "Most keys are guarded by the permissions of their file alone.",
    ),
    row(
        "tls.http2",
        Kind::Bool,
        "true",
        "Speak HTTP/2 with who asks for it, and WebSocket over it (RFC 8441): a browser that has a connection for the page uses it for its WebSockets too; false: HTTP/1.1 for all",
        "Browsers that find no HTTP/2 use HTTP/1.1, and the other way round.",
    ),
    row(
        "identity.provider",
        Kind::Choice(&["session", "application", "jwt", "none"]),
        r#""session""#,
        "Who says which user a browser is: the site's own session, the application in a call before the handshake is answered, a signed token, or nobody",
        "The browser has the site's cookie already. Where nothing is set and this machine has no directory of PHP's sessions, it is none.",
    ),
    row(
        "identity.guests",
        Kind::Choice(&["allow", "refuse"]),
        r#""allow""#,
        "Whether a browser that is nobody may connect; refused ones get 401",
        "A first try works without a login.",
    )
    .flag("guests", FlagValue::Named("allow|refuse")),
    row(
        "identity.allowed_origins",
        Kind::List("https://example.com"),
        r#"["same-origin"]"#,
        "Pages that may open a connection: same-origin, * for all, or origins such as https://example.com",
        "A browser sends its cookies with every handshake, so a foreign page could act as your user.",
    ),
    row(
        "identity.verify_ip",
        Kind::Bool,
        "true",
        "Refuse a browser whose address is not the one that its session was recorded for, where one is recorded (a column of the table, or identity.session.address_keys)",
        "A stolen cookie is of no use elsewhere.",
    )
    .flag("no-verify-ip", FlagValue::False)
    .provider("session"),
    row(
        "identity.recheck",
        Kind::Duration(Zero::Means("never")),
        r#""60s""#,
        "How often the session of an open connection is looked at again; one that has ended closes the connection with 4401",
        "A logout reaches every tab within a minute, at a price that is hard to measure.",
    )
    .provider("session"),
    row(
        "identity.user_change",
        Kind::Choice(&["close", "move"]),
        r#""close""#,
        "What happens to an open connection whose session has another user: closed with 4401, or it goes on as the new one",
        "The page of the old user is best loaded again.",
    )
    .provider("session"),
    row(
        "identity.session.cookie",
        Kind::Text,
        r#""PHPSESSID""#,
        "Name of the cookie that holds the session's id",
        "PHP's own default (session.name).",
    )
    .provider("session"),
    row(
        "identity.session.store",
        Kind::Text,
        r#""files:/var/lib/php/sessions""#,
        "Where the sessions are: files:DIRECTORY, redis://HOST:PORT/DATABASE, mysql://USER:PASSWORD@HOST/DATABASE, postgres://…, sqlite:FILE; what php.ini has as session.save_path is understood too",
        "Where Debian's PHP keeps them.",
    )
    .secret(Secret::Login)
    .provider("session"),
    row(
        "identity.session.serializer",
        Kind::Choice(&["auto", "php", "php_serialize", "php_binary", "json"]),
        r#""auto""#,
        "How the data of a session are written (session.serialize_handler)",
        "PHP's formats can be told apart.",
    )
    .provider("session"),
    row(
        "identity.session.user_keys",
        Kind::List("auth.user.id"),
        r#"["id", "user_id"]"#,
        "Where in the session the user's id is: the first that is set, not empty and not 0; a dot reaches into an array or object",
        "What most sites of their own making have.",
    )
    .provider("session"),
    row(
        "identity.session.address_keys",
        Kind::List("ip"),
        "[]",
        "Where in the session the address is that it was recorded for, for identity.verify_ip",
        "Sites that record one in a table have it in a column.",
    )
    .provider("session"),
    row(
        "identity.session.max_age",
        Kind::Duration(Zero::Refused),
        r#""24m""#,
        "Age after its last change at which a session in a file or a table has ended",
        "PHP's own default (session.gc_maxlifetime, 1440 seconds); Redis ends its sessions itself.",
    )
    .provider("session"),
    row(
        "identity.session.max_size",
        Kind::Size(Zero::Refused),
        r#""1MiB""#,
        "Largest session that is read; the browser of a larger one is refused with 503",
        "Far more than sessions hold.",
    )
    .provider("session"),
    row(
        "identity.session.timeout",
        Kind::Duration(Zero::Refused),
        r#""2s""#,
        "How long a store may take to answer, and a page of the same session to give its lock back; then the browser is refused with 503",
        "PHP locks a session for as long as a page takes.",
    )
    .provider("session"),
    row(
        "identity.session.query",
        Kind::Text,
        r#""carbonphp""#,
        "How a database is asked: carbonphp, laravel or symfony for their tables, or SQL that selects data, and where there are such columns user, address and expires, of the session :id",
        "The origin's table: sessions(user_id, user_ip, session_id, session_expires, session_data).",
    )
    .provider("session"),
    row(
        "identity.jwt.keys",
        Kind::List("/etc/wootz/token.pem"),
        "[]",
        "Files with the keys of those who sign tokens: a public key in PEM (RS256, ES256, EdDSA), or HS256:FILE with a secret",
        "Only you know them.",
    )
    .provider("jwt"),
    row(
        "identity.jwt.jwks_file",
        Kind::Path,
        r#""""#,
        "File with a JSON Web Key Set (RFC 7517), besides or in place of the keys",
        "Only you know it.",
    )
    .provider("jwt"),
    row(
        "identity.jwt.user_claim",
        Kind::Text,
        r#""sub""#,
        "Claim that holds the user's id; a dot reaches into an object",
        "The standard's own word for it.",
    )
    .provider("jwt"),
    row(
        "identity.jwt.issuer",
        Kind::Text,
        r#""""#,
        "Issuer (iss) that a token must name; empty asks for none",
        "The key already says who signed.",
    )
    .provider("jwt"),
    row(
        "identity.jwt.audience",
        Kind::Text,
        r#""""#,
        "Audience (aud) that a token must name; empty: only tokens without one are accepted (RFC 7519, section 4.1.3)",
        "Only you know by which name the issuer calls this site.",
    )
    .provider("jwt"),
    row(
        "identity.jwt.leeway",
        Kind::Duration(Zero::Means("none")),
        r#""30s""#,
        "How far the clock of the issuer may be off",
        "Clocks of servers differ by seconds.",
    )
    .provider("jwt"),
    row(
        "application.runner",
        Kind::Choice(&["exec", "fastcgi", "http"]),
        r#""exec""#,
        "How the application is run: exec starts one fresh process for each call, fastcgi asks a FastCGI server or kept workers, http asks an HTTP server",
        "Any program will do, and no call can harm another.",
    )
    .flag("runner", FlagValue::Named("RUNNER")),
    row(
        "application.command",
        Kind::Command,
        "[]",
        "Program and arguments of a call, or with fastcgi of a worker, without a shell; the command after -- of `wootz serve` overrides it",
        "Only you know it.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.directory",
        Kind::Path,
        r#"".""#,
        "Working directory of calls and workers; a relative application.fastcgi.script is meant from it",
        "The directory that wootz is started in.",
    )
    .only(&[Way::FreshProcess, Way::FastCgiServer, Way::KeptWorkers]),
    row(
        "application.environment",
        Kind::Map,
        "{}",
        "Variables given to every call; with fastcgi its parameters too",
        "A call's environment holds what is named here, what is passed on, and what CGI says.",
    )
    .secret(Secret::Texts)
    .only(&[Way::FreshProcess, Way::FastCgiServer, Way::KeptWorkers]),
    row(
        "application.pass_environment",
        Kind::List("PATH"),
        r#"["PATH", "LANG", "TZ"]"#,
        "Names of wootz's own variables that calls get too, as they are when wootz starts",
        "Enough to find programs and to print text; secrets of the server stay with the server.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.new_session",
        Kind::Bool,
        "false",
        "Start each call in a session of its own (setsid) and not only in its own process group",
        "A process group is enough to end a call with all that it started.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.message",
        Kind::Choice(&["uri", "body"]),
        r#""uri""#,
        "Whether a text message that looks like one is the request's URI, or every message is only the body",
        "`/cart?x=1` sent by the browser then reaches the application's own routes.",
    ),
    row(
        "application.reply",
        Kind::Choice(&["whole", "lines", "stream"]),
        r#""whole""#,
        "What one reply is: all that a call prints, each line at once, or each flush at once",
        "A call that fails half-way then sends nothing.",
    ),
    row(
        "application.frame",
        Kind::Choice(&["auto", "text", "binary"]),
        r#""auto""#,
        "Type of a reply; auto sends valid UTF-8 as text and all else as binary",
        "What the application prints decides.",
    ),
    row(
        "application.events",
        Kind::List("connect"),
        "[]",
        "Further calls: connect when a connection has opened, disconnect when it has closed",
        "Most applications need neither, and each is a process.",
    ),
    row(
        "application.subprotocols",
        Kind::List("json"),
        "[]",
        "Subprotocols that a client may ask for; the first that it names and that is listed is taken",
        "None is needed.",
    ),
    row(
        "application.error_reply",
        Kind::Text,
        r#""""#,
        "Text sent to the browser in place of a reply when a call failed; empty sends nothing",
        "The log has the reason; what browsers shall see is the application's choice.",
    ),
    row(
        "application.busy_reply",
        Kind::Text,
        r#""""#,
        "Text sent when there is no room for a call; empty closes the connection with 1013",
        "Close code 1013 tells every client to come back later.",
    ),
    row(
        "application.fastcgi.address",
        Kind::Text,
        r#""""#,
        "Where the FastCGI server listens: unix:/run/php/php-fpm.sock or host:port; empty with a command: wootz keeps workers of its own",
        "Each system has php-fpm's socket elsewhere.",
    )
    .flag_of_runner("fastcgi", FlagValue::Named("ADDR"), "fastcgi")
    .only(FASTCGI_SERVER),
    row(
        "application.fastcgi.script",
        Kind::Path,
        r#""""#,
        "Script that answers all calls (SCRIPT_FILENAME), as the server sees it; its directory is DOCUMENT_ROOT; a worker that is itself the application needs none",
        "Only you know it.",
    )
    .flag_of_runner("script", FlagValue::Named("FILE"), "fastcgi")
    .only(FASTCGI),
    row(
        "application.fastcgi.workers",
        Kind::Count(Zero::Means("one per core, at least 2")),
        "0",
        "Processes of the command that are kept; each runs one call at a time",
        "Enough to use the machine, and one slow call does not stop the others.",
    )
    .only(KEPT_WORKERS),
    row(
        "application.fastcgi.max_calls",
        Kind::Count(UNLIMITED),
        "1000",
        "Calls after which a worker is replaced by a fresh one",
        "What a program leaks stays small, and a start in a thousand calls costs nothing.",
    )
    .only(KEPT_WORKERS),
    row(
        "application.fastcgi.max_idle",
        Kind::Duration(Zero::Means("never")),
        r#""60s""#,
        "Idleness after which a worker is ended; one always stays warm",
        "Memory that nobody uses goes back soon, and the next call need not wait for a start.",
    )
    .only(KEPT_WORKERS),
    row(
        "application.fastcgi.max_memory",
        Kind::Size(UNLIMITED),
        r#""256MiB""#,
        "Resident memory of a worker and its children above which it is replaced after its call",
        "Twice what PHP gives one script.",
    )
    .only(KEPT_WORKERS),
    row(
        "application.fastcgi.keep",
        Kind::Count(Zero::Means("a new connection for each call")),
        "0",
        "Idle connections that each shard keeps; each holds a worker of php-fpm even while it is idle, so shards times keep has to be well below pm.max_children",
        "A new connection costs microseconds; a worker that is held answers nobody else.",
    )
    .only(FASTCGI_SERVER),
    row(
        "application.fastcgi.connect_timeout",
        Kind::Duration(AS_LONG_AS_THE_CALL),
        r#""5s""#,
        "How long a server that is gone, restarting or full is waited for, or workers of which none stays alive",
        "A restart of php-fpm takes less, and no call is lost to it.",
    )
    .only(FASTCGI),
    row(
        "application.fastcgi.first_byte_timeout",
        Kind::Duration(AS_LONG_AS_THE_CALL),
        r#""""#,
        "How long a server or a worker may take the request and say nothing; empty: application.limits.timeout alone counts",
        "A script may work for long before it prints.",
    )
    .only(FASTCGI),
    row(
        "application.http.url",
        Kind::Text,
        r#""""#,
        "HTTP server that answers calls: http://host:port, with a path before all URIs if you like, or unix:/path",
        "Only you know it.",
    )
    .flag_of_runner("http", FlagValue::Named("URL"), "http")
    .secret(Secret::Login)
    .only(HTTP),
    row(
        "application.http.keep",
        Kind::Count(Zero::Means("a new connection for each call")),
        "8",
        "Idle connections that each shard keeps",
        "A new connection costs more than a short call; HTTP servers hold idle ones easily.",
    )
    .only(HTTP),
    row(
        "application.http.connect_timeout",
        Kind::Duration(AS_LONG_AS_THE_CALL),
        r#""5s""#,
        "How long the connection to the server may take",
        "A server that is there answers in milliseconds.",
    )
    .only(HTTP),
    row(
        "application.http.first_byte_timeout",
        Kind::Duration(AS_LONG_AS_THE_CALL),
        r#""""#,
        "How long a server may have the request and send no head of an answer; empty: application.limits.timeout alone counts",
        "An application may work for long before it answers.",
    )
    .only(HTTP),
    row(
        "application.limits.per_connection",
        Kind::Count(Zero::Refused),
        "1",
        "Calls of one connection at the same time; replies keep the order of the messages",
        "One at a time: a message sees all effects of the one before it.",
    ),
    row(
        "application.limits.per_user",
        Kind::Count(Zero::Refused),
        "4",
        "Calls of one user at the same time, over all their connections; each guest connection is a user of its own",
        "A user with several tabs is served well, and a flood of one delays no other.",
    ),
    row(
        "application.limits.max_running",
        Kind::Count(Zero::Refused),
        "64",
        "Calls at the same time, of all together",
        "64 processes of a scripting language fit into 2 GiB.",
    ),
    row(
        "application.limits.max_waiting",
        Kind::Count(Zero::Means("none waits, a full house answers at once")),
        "4096",
        "Calls that wait for their turn, of all together",
        "More would only wait until max_wait.",
    ),
    row(
        "application.limits.max_waiting_bytes",
        Kind::Size(Zero::Refused),
        r#""64MiB""#,
        "Bytes of the messages that wait for their turn, of all together; one message may always wait",
        "Room for max_waiting ordinary messages or 64 of the largest, and never the machine's memory.",
    ),
    row(
        "application.limits.max_wait",
        Kind::Duration(Zero::Refused),
        r#""10s""#,
        "How long a call may wait for its turn before it is answered as busy",
        "Nobody looks at a reply that comes later.",
    ),
    row(
        "application.limits.timeout",
        Kind::Duration(Zero::Refused),
        r#""30s""#,
        "How long a call may run before it is ended: its whole process group (TERM, then KILL), or its connection to the server",
        "As long as PHP and most proxies give a request.",
    ),
    row(
        "application.limits.max_output",
        Kind::Size(Zero::Refused),
        r#""8MiB""#,
        "What a call may print before it is ended",
        "A program in an endless loop can't fill the memory.",
    ),
    row(
        "application.limits.memory",
        Kind::Size(UNLIMITED),
        r#""""#,
        "Address space of each process of a call (RLIMIT_AS)",
        "Some languages reserve far more than they use.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.limits.cpu",
        Kind::Duration(UNLIMITED),
        r#""""#,
        "Processor time of each process of a call, in whole seconds (RLIMIT_CPU)",
        "The timeout ends a call anyhow.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.limits.processes",
        Kind::Count(UNLIMITED),
        "0",
        "Processes that the user of the calls may have (RLIMIT_NPROC); not enforced on root",
        "It counts all processes of that user, not those of one call.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.limits.open_files",
        Kind::Count(UNLIMITED),
        "0",
        "Descriptors of each process of a call (RLIMIT_NOFILE)",
        "Calls keep the limit that wootz was started with.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.limits.user",
        Kind::Text,
        r#""""#,
        "User that calls run as, by name or number; needs root; empty keeps wootz's own",
        "wootz should not run as root in the first place.",
    )
    .only(OWN_PROCESSES),
    row(
        "application.limits.group",
        Kind::Text,
        r#""""#,
        "Group that calls run as, by name or number; needs root; empty takes the user's own groups",
        "The user's groups are nearly always the right ones.",
    )
    .only(OWN_PROCESSES),
    row(
        "pipes.directory",
        Kind::Path,
        r#""tmp/fifo""#,
        "Directory of the pipes, made where it is missing; empty makes no pipe at all",
        "Where CarbonPHP has them.",
    ),
    row(
        "pipes.global",
        Kind::Bool,
        "true",
        "Make global_pipe.fifo: each record goes to every connection",
        "One `printf` reaches every browser.",
    ),
    row(
        "pipes.requests",
        Kind::Bool,
        "true",
        "Make one pipe per connection: each record is a request, run as that connection's user",
        "It costs one descriptor per connection; switch it off for many thousands of them.",
    ),
    row(
        "pipes.framing",
        Kind::Choice(&["lines", "carbonphp", "length"]),
        r#""lines""#,
        "Where a record ends: at a newline, at CarbonPHP's own mark, or after a length (4 bytes, big-endian)",
        "`printf` and `echo` write lines.",
    ),
    row(
        "pipes.group",
        Kind::Text,
        r#""""#,
        "Group of the pipes, by name or number; empty keeps wootz's own",
        "The application mostly runs as the same user.",
    ),
    row(
        "pipes.mode",
        Kind::Mode,
        r#""0660""#,
        "Permission bits of the pipes",
        "Who may write to a pipe speaks to your users: its owner and its group, nobody else.",
    ),
    row(
        "pipes.max_record",
        Kind::Size(Zero::Refused),
        r#""1MiB""#,
        "Longest record; a longer one is dropped whole, and the log says so",
        "As long as the longest message.",
    ),
    row(
        "control.socket",
        Kind::Path,
        r#""""#,
        "Control socket; empty: wootz.sock in $RUNTIME_DIRECTORY, else in $XDG_RUNTIME_DIR, else in this directory",
        "Server and commands look in the same places, so that they meet without being told.",
    )
    .flag("socket", FlagValue::Named("PATH")),
    row(
        "control.mode",
        Kind::Mode,
        r#""0660""#,
        "Permission bits of the control socket",
        "Who may open it operates the server: its owner and its group, nobody else.",
    ),
    row(
        "control.group",
        Kind::Text,
        r#""""#,
        "Group of the control socket, by name or number; empty keeps wootz's own",
        "Name a group to let its members operate the server.",
    ),
    row(
        "control.http_address",
        Kind::Text,
        r#""""#,
        "Address of the same API by TCP, such as 127.0.0.1:8889, with /metrics; empty: not served. Needs control.token_file",
        "The socket is enough on one machine, and only files' permissions guard it.",
    ),
    row(
        "control.token_file",
        Kind::Path,
        r#""""#,
        "File with the token that clients of control.http_address show; nobody else may be able to read it",
        "A token in this file would be in every backup and listing of it.",
    ),
    row(
        "limits.max_connections",
        Kind::Count(UNLIMITED),
        "0",
        "Connections at the same time; more get 503 with Retry-After. One counts from its whole request on, so silent sockets take nobody's place",
        "The limit of open files ends it anyhow; set it to what your application and memory carry.",
    ),
    row(
        "limits.per_address",
        Kind::Count(UNLIMITED),
        "0",
        "Connections of one address at the same time, of IPv6 those of one /64 network; more get 429 with Retry-After",
        "Offices and mobile networks share one address among thousands, and so does a proxy that is not in listen.trusted_proxies.",
    ),
    row(
        "limits.per_user",
        Kind::Count(UNLIMITED),
        "0",
        "Connections of one user at the same time; more get 429 with Retry-After; guests are no users",
        "Each tab is one, and how many are too many only you know.",
    ),
    row(
        "limits.handshakes_per_second",
        Kind::Count(UNLIMITED),
        "0",
        "Handshakes of one address (of IPv6, one /64 network) per second in the long run; faster ones get 429 with Retry-After",
        "After a restart all browsers behind one address come back at once.",
    ),
    row(
        "limits.handshake_burst",
        Kind::Count(Zero::Refused),
        "20",
        "Handshakes of one address that may come at once before limits.handshakes_per_second counts",
        "A browser with many tabs that was asleep.",
    ),
    row(
        "limits.max_handshakes",
        Kind::Count(Zero::Refused),
        "16384",
        "Sockets that have not sent their whole request, never more than a quarter of the open files; at one more the oldest is closed",
        "An honest request is whole within a round trip; each of the others may hold as much memory as limits.max_head.",
    ),
    row(
        "limits.handshake_timeout",
        Kind::Duration(Zero::Refused),
        r#""10s""#,
        "Time from the connection to its complete request; slower ones get 408",
        "Enough for any phone; a silent peer is gone soon.",
    ),
    row(
        "limits.max_head",
        Kind::Size(Zero::Refused),
        r#""32KiB""#,
        "Longest request line with header fields; longer ones get 431",
        "Several times what browsers send with many cookies.",
    ),
    row(
        "limits.max_message",
        Kind::Size(Zero::Refused),
        r#""1MiB""#,
        "Longest message of a browser; a longer one closes with 1009",
        "A message is held in memory whole, one per connection.",
    ),
    row(
        "limits.max_frames",
        Kind::Count(Zero::Refused),
        "65536",
        "Fragments of one message; more close with 1009",
        "What the test suites of the protocol send at most.",
    ),
    row(
        "limits.outbox",
        Kind::Size(Zero::Refused),
        r#""1MiB""#,
        "What may wait for one slow reader; more closes its connection with 1013",
        "A reader that far behind is gone or stuck, and its memory is everybody's.",
    ),
    row(
        "limits.ping_interval",
        Kind::Duration(Zero::Means("never")),
        r#""25s""#,
        "Silence of a browser after which it is pinged",
        "Below the idle limits of the usual proxies, of which 30 s is the shortest.",
    ),
    row(
        "limits.pong_timeout",
        Kind::Duration(Zero::Refused),
        r#""10s""#,
        "Silence after that ping which closes the connection with 4408",
        "A phone that changes its network needs a few seconds.",
    ),
    row(
        "limits.drain_timeout",
        Kind::Duration(Zero::Means("calls are ended at once")),
        r#""30s""#,
        "How long running calls may take to end when the server stops",
        "As long as a call may run.",
    ),
    row(
        "limits.text_ping",
        Kind::Bool,
        "true",
        "Answer the text message `ping` with `pong`, without a call",
        "Many clients send it as their own keepalive, and a process for each would be waste.",
    ),
    row(
        "limits.max_channels",
        Kind::Count(Zero::Means("no channels at all")),
        "65536",
        "Different channels at the same time; one more is refused",
        "Names come from the application, and a loop that makes them up must not take all memory.",
    ),
    row(
        "limits.channels_per_connection",
        Kind::Count(Zero::Means("no channels at all")),
        "64",
        "Channels that one connection may be in; one more is refused",
        "A page shows a few things at a time.",
    ),
    row(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        r#""info""#,
        "Least important thing that is logged",
        "What an operator reads; with --dev it is debug.",
    ),
    row(
        "log.format",
        Kind::Choice(&["text", "json"]),
        r#""text""#,
        "Form of a log line: for people, or one JSON object each",
        "People read it first.",
    ),
];

/// The row of this key.
pub(crate) fn find(key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.key == key)
}

#[cfg(test)]
mod tests;
