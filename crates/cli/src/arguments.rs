//! The command line, made from the table of settings. Values are not judged here but with those of all other sources,
//! so that every mistake is shown at once.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PathBufValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};

use crate::commands::proxy::{FORMS, NAMES};
use crate::settings::{Dev, FileChoice, FlagValue, Override, Sources, TABLE, help_list};

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("wootz")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Realtime for the application you already have: each message of a browser runs it, and what it prints goes back.")
        .after_help("Try it: wootz serve --dev -- sh -c 'echo \"Hello from process $$\"'")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve())
        .subcommand(push())
        .subcommand(status())
        .subcommand(connections())
        .subcommand(disconnect())
        .subcommand(channels())
        .subcommand(tail())
        .subcommand(check())
        .subcommand(config())
        .subcommand(proxy())
        .subcommand(doctor())
}

fn serve() -> Command {
    Command::new("serve")
        .visible_alias("websocket")
        .about("Serve WebSockets and run the application for each message")
        .override_usage("wootz serve [OPTIONS] [-- COMMAND [ARG]...]")
        .args(setting_arguments())
        .after_long_help(help_list())
}

fn push() -> Command {
    let targets = [
        option("user", "ID", "To all connections of this user, by the exact id"),
        option("session", "ID", "To all connections of this session, by the exact id"),
        option("connection", "ID", "To this connection"),
        option("channel", "NAME", "To the connections in this channel, by its exact name"),
    ];
    let text = Arg::new("text")
        .value_name("TEXT")
        .allow_hyphen_values(true)
        .help("What to push; - or nothing reads standard input, of which one final newline is taken off");
    of_running_server("push", "Push a text, bytes or a request to browsers; prints how many it reached")
        .override_usage(
            "wootz push (--all | --user ID | --session ID | --connection ID | --channel NAME) [OPTIONS] [TEXT | -]",
        )
        .arg(flag("all", "To every connection"))
        .args(targets)
        .group(ArgGroup::new("to").args(["all", "user", "session", "connection", "channel"]).required(true))
        .arg(flag("request", "TEXT is a request: it runs as the user of each connection, which gets what it prints"))
        .arg(
            flag("once", "Run the request once for each user, and send all their connections what it prints")
                .requires("request"),
        )
        .arg(flag("binary", "Push the bytes as they are, as a binary message").conflicts_with_all(["request", "lines"]))
        .arg(flag("lines", "Push each line of standard input as a message of its own, as soon as it comes"))
        .arg(flag("wait", "Wait until everything was written out, at most 10 s, and print to how many"))
        .arg(flag("json", "Print the receipt as JSON"))
        .arg(text)
        .after_help(
            "It ends with 0 when the server took the push, also when it reached nobody; 1 when no server took it.",
        )
}

fn status() -> Command {
    of_running_server("status", "Show what the running server does: connections, users, calls, memory, uptime")
        .arg(flag("json", "Print the server's JSON as it is"))
}

fn connections() -> Command {
    of_running_server("connections", "List the open connections, one row each")
        .arg(flag("json", "Print the server's JSON as it is"))
        .arg(option("user", "ID", "Only those of this user"))
        .arg(option("session", "ID", "Only those of this session"))
        .arg(option("channel", "NAME", "Only those in this channel"))
}

fn disconnect() -> Command {
    of_running_server("disconnect", "Close a connection")
        .arg(Arg::new("id").value_name("ID").required(true).help("Its id, as `wootz connections` shows it"))
        .arg(option("code", "N", "Close code that the browser gets [default: 1000]"))
        .after_help("It ends with 0 when the connection is closed, 1 when there is none of this id.")
}

fn channels() -> Command {
    of_running_server("channels", "List the channels that somebody is in, or who is in one")
        .arg(flag("json", "Print the server's JSON as it is"))
        .arg(Arg::new("name").value_name("NAME").allow_hyphen_values(true).help("Show who is in this channel"))
}

fn tail() -> Command {
    of_running_server("tail", "Show what happens: opened, message, call, reply, push, closed, joined, left")
        .arg(flag("json", "Print one JSON object a line"))
        .arg(option("user", "ID", "Only what concerns this user"))
        .arg(flag("payload", "Show also what was sent; it may be secret"))
}

/// A command that asks the running server over its control socket.
fn of_running_server(name: &'static str, about: &'static str) -> Command {
    let socket = named("control.socket").expect("the control socket has a flag");
    Command::new(name).about(about).arg(file_argument()).arg(socket)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).allow_hyphen_values(true).help(help)
}

/// The text of an argument that was given.
pub(crate) fn value<'m>(matches: &'m ArgMatches, name: &str) -> Option<&'m str> {
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
}

fn check() -> Command {
    Command::new("check")
        .about("Show every mistake of the configuration at once, with file and line")
        .override_usage("wootz check [OPTIONS] [FILE] [-- COMMAND [ARG]...]")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(PathBufValueParser::new())
                .help("File to check, in place of wootz.toml")
                .conflicts_with("config"),
        )
        .args(setting_arguments())
}

fn config() -> Command {
    Command::new("config")
        .about("Print the configuration that is in force, and where each part of it came from")
        .override_usage("wootz config [OPTIONS] [-- COMMAND [ARG]...]")
        .arg(flag("default", "Print a file with every setting, its default and why, all commented out"))
        .args(setting_arguments())
}

fn proxy() -> Command {
    Command::new("proxy")
        .about("Print the lines that a web server needs to pass WebSockets on to this configuration")
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .value_parser(PossibleValuesParser::new(NAMES))
                .help("Whose lines; without it, all are listed"),
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("FORM")
                .value_parser(PossibleValuesParser::new(FORMS))
                .help("Which form of apache's; the first is the default"),
        )
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("ADDR")
                .help("host:port, plain:host:port (without TLS) or unix:/path at which the proxy reaches wootz, where it is not listen.address"),
        )
        .arg(
            Arg::new("tls-name")
                .long("tls-name")
                .value_name("NAME")
                .help("The host that wootz's certificate is for, where the proxy shall check that and --to is an address"),
        )
        .arg(
            Arg::new("ca")
                .long("ca")
                .value_name("FILE")
                .value_parser(PathBufValueParser::new())
                .help("Authorities by which the proxy checks wootz's certificate, where it is none of the public ones (PEM)"),
        )
        .arg(file_argument())
        .arg(named("listen.address").expect("the address has a flag"))
        .arg(set_argument())
}

fn doctor() -> Command {
    let text = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let seconds = |name, help| text(name, "SECONDS", help).value_parser(clap::value_parser!(u64).range(1..=86_400));
    Command::new("doctor")
        .about("Connect through the public URL, and say which hop breaks, who is to blame, and what to change")
        .arg(
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("What the page connects to: wss://, ws://, https:// or http://"),
        )
        .arg(text("cookie", "COOKIE", "Send this field Cookie: NAME=VALUE; NAME=VALUE"))
        .arg(text("origin", "ORIGIN", "The page's origin, where it is not the URL's own"))
        .arg(text("message", "TEXT", "Send this message and show its reply, in place of the text ping"))
        .arg(seconds("idle", "Then be silent for so long, and see whether the connection lasts"))
        .arg(text("direct", "URL", "Go to wootz itself too, past the proxy, and compare: ws://127.0.0.1:8888/"))
        .arg(
            text("ca", "FILE", "Believe the authorities in this file, and not this machine's (PEM)")
                .value_parser(PathBufValueParser::new()),
        )
        .arg(flag("insecure", "Go on in spite of a bad certificate; it is told all the same"))
        .arg(seconds("timeout", "How long each answer may take").default_value("10"))
        .arg(flag("json", "Print the same as JSON"))
        .arg(file_argument())
        .arg(named("control.socket").expect("the control socket has a flag"))
}

/// What every command takes that reads the settings as `serve` does.
fn setting_arguments() -> Vec<Arg> {
    let own = TABLE.iter().filter_map(|row| named(row.key));
    let command = Arg::new("command")
        .value_name("COMMAND")
        .num_args(1..)
        .last(true)
        .value_parser(OsStringValueParser::new())
        .help("Program that runs for each message, with its arguments");
    let dev = flag("dev", "For development: the console page on GET /, failures told to the browser, log.level debug");
    [file_argument(), dev].into_iter().chain(own).chain([set_argument(), command]).collect()
}

fn set_argument() -> Arg {
    Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Set any setting of the file; may be repeated")
}

fn file_argument() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(PathBufValueParser::new())
        .help("Read this file in place of wootz.toml")
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The flag of a setting that has one of its own.
fn named(key: &str) -> Option<Arg> {
    let row = TABLE.iter().find(|row| row.key == key)?;
    let flag = row.flag?;
    let argument = Arg::new(row.key).long(flag.name).help(row.help);
    Some(match flag.value {
        FlagValue::True => argument.action(ArgAction::SetTrue),
        FlagValue::False => argument.action(ArgAction::SetTrue).help(format!("Switch off {}: {}", row.key, row.help)),
        FlagValue::Named(value) => argument.value_name(value).allow_hyphen_values(true),
    })
}

/// The sources of the settings, as the arguments of a command name them.
pub(crate) fn sources(matches: &ArgMatches, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
    let dev = if given(matches, "dev") { Dev::Yes } else { Dev::No };
    Sources { file: file(matches), variables: variables.collect(), overrides: overrides(matches), dev }
}

fn file(matches: &ArgMatches) -> FileChoice {
    let named = |id| matches.try_get_one::<PathBuf>(id).ok().flatten();
    match named("config").or_else(|| named("file")) {
        Some(path) => FileChoice::Named(path.clone()),
        None => FileChoice::IfPresent,
    }
}

/// Flags in the order in which they win: `--set`, then a setting's own flag, then the command after `--`.
fn overrides(matches: &ArgMatches) -> Vec<Override> {
    let sets = matches.try_get_many::<String>("set").ok().flatten().into_iter().flatten();
    let mut overrides: Vec<Override> = sets.cloned().map(Override::Set).collect();
    for row in TABLE {
        let text = match row.flag.map(|flag| flag.value) {
            Some(FlagValue::True) => given(matches, row.key).then(|| "true".to_owned()),
            Some(FlagValue::False) => given(matches, row.key).then(|| "false".to_owned()),
            Some(FlagValue::Named(_)) => matches.try_get_one::<String>(row.key).ok().flatten().cloned(),
            None => None,
        };
        overrides.extend(text.map(|text| Override::Flag { row, text }));
    }
    let command = matches.try_get_many::<OsString>("command").ok().flatten();
    overrides.extend(command.map(|words| Override::Command(words.cloned().collect())));
    overrides
}

/// Whether a flag without a value was given. Commands that do not have it say no.
pub(crate) fn given(matches: &ArgMatches, name: &str) -> bool {
    matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or(false)
}
