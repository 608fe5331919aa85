//! The rooms `identity`, `identity.session` and `identity.jwt`.
//!
//! A setting of a provider that is not the one in force is a mistake: taking it would be a lie.

use std::time::Duration;

use wootz_server::config::{
    Guests, Identity, JwtSettings, KeyPath, KeySource, Provider, Query, Serializer, SessionProvider, StoreOptions,
    StoreSettings, UserChange, Verifier, VerifyAddress,
};

use super::{Resolver, not_in_the_table, origin};
use crate::settings::TABLE;

const PROVIDER: &str = "identity.provider";
const STORE: &str = "identity.session.store";

impl Resolver<'_> {
    pub(super) fn identity(&mut self) -> Identity {
        let mut allowed_origins = Vec::new();
        for text in self.settings.list("identity.allowed_origins") {
            match origin::parse(text) {
                Ok(origin) => allowed_origins.push(origin),
                Err(why) => self.problem("identity.allowed_origins", &format!("has \"{text}\": {why}")),
            }
        }
        Identity {
            provider: self.provider(),
            guests: match self.settings.text("identity.guests") {
                "allow" => Guests::Allow,
                "refuse" => Guests::Refuse,
                other => not_in_the_table(other),
            },
            allowed_origins,
        }
    }

    fn provider(&mut self) -> Provider {
        let provider = self.settings.text(PROVIDER);
        self.check_providers(provider);
        // Both rooms are read whatever the provider is: a mistake in one that is not in use is a mistake too.
        let session = self.session_provider();
        let jwt = self.jwt(if provider == "jwt" { InUse::Yes } else { InUse::No });
        match provider {
            "none" => Provider::None,
            "application" => Provider::Application,
            "session" => match session {
                // The default of a machine that has no PHP: a first try must not begin with an error.
                Some(session) if !self.is_default_without_php(&session.store) => Provider::Session(Box::new(session)),
                _ => Provider::None,
            },
            "jwt" => Provider::Jwt(jwt),
            other => not_in_the_table(other),
        }
    }

    /// Reports what was written for another provider.
    fn check_providers(&mut self, provider: &str) {
        if self.settings.is_broken(PROVIDER) {
            return;
        }
        let settings = self.settings;
        let idle = TABLE.iter().filter(|row| row.provider.is_some_and(|wanted| wanted != provider));
        for row in idle.filter(|row| settings.is_changed(row)) {
            let chosen = settings.origin(PROVIDER);
            // A later source that has chosen another provider has overridden it.
            if !chosen.wins_over(settings.origin(row.key)) {
                let wanted = row.provider.unwrap_or_default();
                let text = format!("does nothing with {PROVIDER} = \"{provider}\" ({chosen}); it is for \"{wanted}\"");
                self.problem(row.key, &text);
            }
        }
    }

    fn is_default_without_php(&self, store: &StoreSettings) -> bool {
        let unwritten = self.settings.is_default(PROVIDER) && self.settings.is_default(STORE);
        unwritten && matches!(store, StoreSettings::Files(files) if !files.directory.is_dir())
    }

    fn session_provider(&mut self) -> Option<SessionProvider> {
        let settings = self.settings;
        let store = match StoreSettings::parse(settings.text(STORE)) {
            Ok(store) => Some(store),
            Err(why) => {
                self.problem(STORE, &why);
                None
            }
        };
        if let Some(StoreSettings::Files(files)) = &store
            && settings.text(PROVIDER) == "session"
            && !settings.is_default(STORE)
            && !files.directory.is_dir()
        {
            self.problem(STORE, &format!("names {}, which is no directory", files.directory.display()));
        }
        let cookie = settings.text("identity.session.cookie");
        if cookie.is_empty() || cookie.contains(|c: char| !c.is_ascii_graphic() || "=;,[. ".contains(c)) {
            self.problem("identity.session.cookie", "has to be a cookie's name, as session.name of php.ini has it");
        }
        let user_keys = self.key_paths("identity.session.user_keys");
        let address_keys = self.key_paths("identity.session.address_keys");
        let query = Query::parse(settings.text("identity.session.query")).unwrap_or_else(|why| {
            self.problem("identity.session.query", &why);
            Query::default()
        });
        let options = StoreOptions {
            max_age: settings.duration("identity.session.max_age"),
            max_bytes: self.bytes("identity.session.max_size"),
            deadline: settings.duration("identity.session.timeout"),
            query,
        };
        Some(SessionProvider {
            cookie: cookie.to_owned(),
            store: store?,
            options,
            serializer: match settings.text("identity.session.serializer") {
                "auto" => Serializer::Auto,
                "php" => Serializer::Php,
                "php_serialize" => Serializer::PhpSerialize,
                "php_binary" => Serializer::PhpBinary,
                "json" => Serializer::Json,
                other => not_in_the_table(other),
            },
            user_keys,
            address_keys,
            verify_address: if settings.flag("identity.verify_ip") { VerifyAddress::Yes } else { VerifyAddress::No },
            recheck: some(settings.duration("identity.recheck")),
            user_change: match settings.text("identity.user_change") {
                "close" => UserChange::Close,
                "move" => UserChange::Move,
                other => not_in_the_table(other),
            },
        })
    }
}

impl Resolver<'_> {
    /// The keys are read here too, so that a start, and `wootz check`, can name what is wrong with them.
    fn jwt(&mut self, in_use: InUse) -> JwtSettings {
        let settings = self.settings;
        let file = settings.text("identity.jwt.jwks_file");
        let jwt = JwtSettings {
            keys: settings.list("identity.jwt.keys").iter().map(|text| KeySource::parse(text)).collect(),
            jwks_file: (!file.is_empty()).then(|| file.into()),
            user_claim: settings.text("identity.jwt.user_claim").to_owned(),
            issuer: settings.text("identity.jwt.issuer").to_owned(),
            audience: settings.text("identity.jwt.audience").to_owned(),
            leeway: settings.duration("identity.jwt.leeway"),
        };
        if in_use == InUse::Yes {
            for error in Verifier::load(jwt.clone()).err().into_iter().flatten() {
                let text = match &error.file {
                    Some(file) => format!("names {}, which {}", file.display(), error.problem),
                    None => error.problem.to_string(),
                };
                self.problem(error.setting, &text);
            }
        }
        jwt
    }

    fn key_paths(&mut self, key: &str) -> Vec<KeyPath> {
        let mut paths = Vec::new();
        for text in self.settings.list(key) {
            match KeyPath::parse(text) {
                Ok(path) => paths.push(path),
                Err(why) => self.problem(key, &format!("has \"{text}\": {why}")),
            }
        }
        paths
    }
}

/// Whether a room's provider is the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InUse {
    Yes,
    No,
}

/// 0 is none.
fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
