//! The rooms `application` and `application.limits`: what is called and how.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wootz_runner::exec::{ExecSettings, NewSession, ProcessLimits, find_program};
use wootz_server::config::{Calls, FrameMode, MessageMode, Notify, ReplyMode};

use super::{Resolver, accounts, not_in_the_table};
use crate::settings::Way;

/// What calls run as, where it is not wootz's own user and group.
#[derive(Debug, Default)]
struct RunAs {
    user: Option<u32>,
    group: Option<u32>,
    groups: Vec<u32>,
}

impl Resolver<'_> {
    /// The part of `application` that every runner has.
    pub(super) fn calls(&mut self) -> Calls {
        let settings = self.settings;
        let events = settings.list("application.events");
        for event in events.iter().filter(|event| !["connect", "disconnect"].contains(&event.as_str())) {
            self.problem("application.events", &format!(r#"has "{event}"; there are "connect" and "disconnect""#));
        }
        let subprotocols = settings.list("application.subprotocols");
        for name in subprotocols.iter().filter(|name| !is_token(name)) {
            self.problem(
                "application.subprotocols",
                &format!("has \"{name}\", which is no token (letters, digits and !#$%&'*+-.^_`|~)"),
            );
        }
        let notify =
            |event: &str| if events.iter().any(|asked| asked == event) { Notify::Call } else { Notify::Silent };
        Calls {
            message: match settings.text("application.message") {
                "uri" => MessageMode::Uri,
                "body" => MessageMode::Body,
                other => not_in_the_table(other),
            },
            subprotocols: subprotocols.to_vec(),
            on_connect: notify("connect"),
            on_disconnect: notify("disconnect"),
            error_reply: settings.text("application.error_reply").to_owned(),
            busy_reply: settings.text("application.busy_reply").to_owned(),
            per_connection: self.number("application.limits.per_connection"),
            per_user: self.number("application.limits.per_user"),
            max_running: self.number("application.limits.max_running"),
            max_waiting: self.number("application.limits.max_waiting"),
            max_waiting_bytes: self.bytes("application.limits.max_waiting_bytes"),
            max_wait: settings.duration("application.limits.max_wait"),
        }
    }

    /// The processes that wootz starts itself.
    pub(super) fn processes(&mut self, way: Way) -> ExecSettings {
        let command = self.command(way);
        let run_as = self.run_as();
        ExecSettings {
            command,
            directory: self.directory(),
            environment: self.environment_of_calls(),
            pass_environment: self.passed_names(),
            reply: self.reply(),
            frame: self.frame(),
            timeout: self.settings.duration("application.limits.timeout"),
            max_output_bytes: self.bytes("application.limits.max_output"),
            session: self.session(),
            limits: self.process_limits(),
            user: run_as.user,
            group: run_as.group,
            groups: run_as.groups,
            ..ExecSettings::default()
        }
    }

    pub(super) fn reply(&self) -> ReplyMode {
        match self.settings.text("application.reply") {
            "whole" => ReplyMode::Whole,
            "lines" => ReplyMode::Lines,
            "stream" => ReplyMode::Stream,
            other => not_in_the_table(other),
        }
    }

    pub(super) fn frame(&self) -> FrameMode {
        match self.settings.text("application.frame") {
            "auto" => FrameMode::Auto,
            "text" => FrameMode::Text,
            "binary" => FrameMode::Binary,
            other => not_in_the_table(other),
        }
    }

    pub(super) fn directory(&self) -> PathBuf {
        PathBuf::from(self.settings.text("application.directory"))
    }

    fn session(&self) -> NewSession {
        if self.settings.flag("application.new_session") { NewSession::Yes } else { NewSession::No }
    }

    /// The command, which has to be one that can be run.
    fn command(&mut self, way: Way) -> Vec<OsString> {
        let command: Vec<OsString> = self.settings.list("application.command").iter().map(OsString::from).collect();
        self.check_program(&command, way);
        command
    }

    fn process_limits(&self) -> ProcessLimits {
        let limited = |value: u64| (value != 0).then_some(value);
        let cpu = self.settings.duration("application.limits.cpu");
        ProcessLimits {
            memory_bytes: limited(self.settings.size("application.limits.memory")),
            cpu_seconds: limited(whole_seconds(cpu)),
            processes: limited(self.settings.count("application.limits.processes").into()),
            open_files: limited(self.settings.count("application.limits.open_files").into()),
        }
    }

    /// The variables of every call.
    pub(super) fn environment_of_calls<T: From<String>>(&mut self) -> Vec<(T, T)> {
        let pairs = self.settings.map("application.environment");
        for (name, text) in pairs {
            if !is_variable(name) {
                self.problem(
                    "application.environment",
                    &format!("has the name \"{name}\", which no variable can have"),
                );
            }
            if text.contains('\0') {
                self.problem("application.environment", &format!("has the character U+0000 in {name}"));
            }
        }
        pairs.iter().cloned().map(|(name, text)| (name.into(), text.into())).collect()
    }

    fn passed_names(&mut self) -> Vec<String> {
        let names = self.settings.list("application.pass_environment");
        for name in names.iter().filter(|name| !is_variable(name)) {
            self.problem("application.pass_environment", &format!("has \"{name}\", which no variable can be called"));
        }
        names.to_vec()
    }

    /// Whether the command can be run. A missing directory is reported alone: nothing can be found in it.
    fn check_program(&mut self, command: &[OsString], way: Way) {
        let directory = self.directory();
        if !directory.is_dir() {
            let why = if directory.exists() { "is not a directory" } else { "does not exist" };
            return self.problem("application.directory", &format!("= \"{}\" {why}", directory.display()));
        }
        let Some(program) = command.first() else { return self.no_command(way) };
        if command.iter().any(|word| word.as_encoded_bytes().contains(&0)) {
            return self.problem("application.command", "can't hold the character U+0000");
        }
        let path = self.path_of_calls();
        if let Err(why) = find_program(program, path.as_deref(), &directory) {
            self.problem("application.command", &format!("can't run: {why}"));
        }
    }

    /// The `PATH` that a call gets: its own, else ours where it is passed on.
    fn path_of_calls(&self) -> Option<OsString> {
        let settings = self.settings;
        let own = settings.map("application.environment").iter().find(|(name, _)| name == "PATH");
        let passed = || settings.list("application.pass_environment").iter().any(|name| name == "PATH");
        match own {
            Some((_, path)) => Some(path.into()),
            None => passed().then(|| (self.environment)("PATH")).flatten(),
        }
    }

    fn no_command(&mut self, way: Way) {
        if way == Way::KeptWorkers {
            return self.missing("application.command", &nothing_to_ask());
        }
        // Of a runner that nobody knows it can't be said that it needs one.
        if !self.settings.is_broken("application.runner") {
            self.problem("application.command", &no_command(self.settings.is_default("application.command")));
        }
    }

    fn run_as(&mut self) -> RunAs {
        const USER: &str = "application.limits.user";
        const GROUP: &str = "application.limits.group";
        for key in [USER, GROUP] {
            if !self.settings.text(key).is_empty() && !accounts::is_root() {
                self.problem(key, "can only be set where wootz is started as root");
            }
        }
        let group = match self.settings.text(GROUP) {
            "" => None,
            name => accounts::group(name).map_err(|why| self.problem(GROUP, &why)).ok(),
        };
        let account = match self.settings.text(USER) {
            "" => None,
            name => accounts::user(name, group).map_err(|why| self.problem(USER, &why)).ok(),
        };
        match (account, group) {
            (Some(account), _) => {
                RunAs { user: Some(account.user), group: Some(account.group), groups: account.groups }
            }
            (None, Some(group)) => RunAs { user: None, group: Some(group), groups: vec![group] },
            (None, None) => RunAs::default(),
        }
    }
}

/// What to do where nothing would run.
fn no_command(is_default: bool) -> String {
    let example =
        if Path::new("index.php").is_file() { "php index.php" } else { "sh -c 'echo \"Hello from process $$\"'" };
    let state = if is_default { "is not set, so nothing would run" } else { "is empty, so nothing would run" };
    format!("{state}; try: wootz serve --dev -- {example}")
}

/// What to do where `fastcgi` has neither of its two ways.
fn nothing_to_ask() -> String {
    let script = if Path::new("index.php").is_file() { "index.php" } else { "/var/www/html/index.php" };
    format!(
        "needs application.fastcgi.address or a command; try: wootz serve --fastcgi unix:/run/php/php-fpm.sock --script {script}, \
         or: wootz serve --runner fastcgi --script {script} -- php-cgi"
    )
}

/// Up to the next whole second, since a limit of 0 would be none.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// A token of HTTP (RFC 9110, section 5.6.2), as subprotocols are.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
