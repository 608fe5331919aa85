//! The ways of running calls. `application.runner` names three; `fastcgi` has two, with and without an address.

/// How calls are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `exec`: a command, one process for each call.
    FreshProcess,
    /// `fastcgi` with an address: a server that runs already.
    FastCgiServer,
    /// `fastcgi` with a command: workers that wootz starts and keeps.
    KeptWorkers,
    /// `http`: a server that runs already.
    HttpServer,
}

impl Way {
    /// As an operator writes it: `runner = "fastcgi" with an address`.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::FreshProcess => r#"runner = "exec""#,
            Self::FastCgiServer => r#"runner = "fastcgi" with an address"#,
            Self::KeptWorkers => r#"runner = "fastcgi" with a command"#,
            Self::HttpServer => r#"runner = "http""#,
        }
    }

    /// Several of them, in words.
    pub(crate) fn describe_all(ways: &[Self]) -> String {
        let both = [Self::FastCgiServer, Self::KeptWorkers];
        let is_both = |way: &Self| both.contains(way) && both.iter().all(|way| ways.contains(way));
        let mut words: Vec<&str> = Vec::new();
        for way in ways {
            let word = if is_both(way) { r#"runner = "fastcgi""# } else { way.describe() };
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words.join(" and ")
    }
}
