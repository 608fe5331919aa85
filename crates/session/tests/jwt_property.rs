//! Whatever is given as a token, a key or a query: nothing panics, and nothing but the token itself is accepted.

mod jwt;

use std::fs;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt::{Made, now};
use proptest::prelude::*;
use wootz_session::jwt::{
    JwtSettings, KeySource, Verifier, from_authorization, from_query, from_subprotocols, query_without_token,
    subprotocols_without_token, without_token,
};

/// Verifiers and valid tokens; the files behind them are not needed any more.
fn valid() -> &'static (Vec<Verifier>, Vec<String>) {
    static VALID: OnceLock<(Vec<Verifier>, Vec<String>)> = OnceLock::new();
    VALID.get_or_init(|| {
        let made = Made::new();
        let tokens = [made.tokens("good "), made.tokens("kid HS256"), made.tokens("kid ES256")].concat();
        let tokens = tokens.into_iter().map(|(_, token)| token.to_owned()).collect();
        (vec![made.by_files(), made.by_set()], tokens)
    })
}

fn nobody_accepts(token: &str) {
    for verifier in &valid().0 {
        assert!(verifier.verify(token, now()).is_err(), "{token}");
    }
}

/// What is between the dots of an attack: JSON that is nearly right.
fn part() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        Just(r#""alg":"HS256""#.to_owned()),
        Just(r#""alg":"none""#.to_owned()),
        Just(r#""kid":"h""#.to_owned()),
        Just(r#""exp":1800000060"#.to_owned()),
        "\"[a-z]{1,4}\":(null|-?[0-9]{1,22}(\\.[0-9])?(e[0-9]{1,3})?|\"[^\"]{0,6}\"|\\[{0,40}|\\{\\})",
    ];
    let json = proptest::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",")));
    prop_oneof![json.prop_map(|json| URL_SAFE_NO_PAD.encode(json)), "[A-Za-z0-9_-]{0,60}", "\\PC{0,20}"]
}

#[test]
fn the_end_of_a_token_has_one_spelling_only() {
    let characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. ";
    for token in &valid().1 {
        let (most, last) = token.split_at(token.len() - 1);
        assert!(valid().0.iter().all(|verifier| verifier.verify(token, now()).is_ok()));
        for other in characters.chars().filter(|other| !last.starts_with(*other)) {
            nobody_accepts(&format!("{most}{other}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_a_token(text in any::<String>()) {
        nobody_accepts(&text);
    }

    #[test]
    fn nothing_that_resembles_a_token_is_one(parts in proptest::collection::vec(part(), 1..6)) {
        nobody_accepts(&parts.join("."));
    }

    #[test]
    fn a_token_with_another_character_is_none(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), new in "[A-Za-z0-9_.=-]|\\PC",
    ) {
        let token = which.get(&valid().1);
        let at = at.index(token.len());
        prop_assume!(token[at..=at] != new);
        nobody_accepts(&format!("{}{new}{}", &token[..at], &token[at + 1..]));
        nobody_accepts(&format!("{}{new}{}", &token[..at], &token[at..]));
    }

    #[test]
    fn a_token_that_is_cut_or_mixed_is_none(
        which in any::<[prop::sample::Index; 2]>(), at in any::<[prop::sample::Index; 2]>(),
    ) {
        let token = which[0].get(&valid().1);
        let other = which[1].get(&valid().1);
        let (from, to) = (at[0].index(token.len()), at[1].index(token.len()));
        nobody_accepts(&token[..from]);
        nobody_accepts(&token[from.max(1)..]);
        if from < to {
            nobody_accepts(&format!("{}{}", &token[..from], &token[to..]));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let others: Vec<&str> = other.split('.').collect();
        if token != other {
            nobody_accepts(&format!("{}.{}.{}", parts[0], parts[1], others[2]));
            nobody_accepts(&format!("{}.{}.{}", others[0], parts[1], parts[2]));
        }
    }

    #[test]
    fn no_key_file_makes_it_panic(
        content in proptest::collection::vec(any::<u8>(), 0..200),
        start in prop::sample::select(vec!["", "-----BEGIN PUBLIC KEY-----\n", "{\"keys\":[", "ssh-rsa ", "MIIB"]),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        fs::write(&file, [start.as_bytes(), &content].concat()).expect("written");
        for source in [KeySource::File(file.clone()), KeySource::Secret(file.clone())] {
            let jwks_file = Some(file.clone());
            let settings = JwtSettings { keys: vec![source], jwks_file, ..JwtSettings::default() };
            prop_assert!(Verifier::load(settings).is_err(), "it is no JWKS");
        }
    }

    #[test]
    fn a_query_without_its_token_has_none_and_keeps_the_rest(
        parameters in proptest::collection::vec("(token|%74oken|tokens|a|\\PC{0,3})(=(a|%2|%|\\PC{0,5}))?", 0..6),
        prefix in "/[a-z]{0,3}",
    ) {
        let query = parameters.join("&");
        let rest = query_without_token(&query);
        prop_assert_eq!(from_query(&rest), None);
        prop_assert_eq!(query_without_token(&rest), rest.clone());
        let kept: Vec<&str> = query.split('&').filter(|parameter| !query_without_token(parameter).is_empty()).collect();
        let left: Vec<&str> = rest.split('&').filter(|parameter| !parameter.is_empty()).collect();
        prop_assert_eq!(kept, left);
        let target = format!("{prefix}?{query}");
        let stripped = without_token(&target);
        prop_assert!(stripped.starts_with(&prefix));
        prop_assert_eq!(stripped.split_once('?').map_or("", |(_, query)| query), &*rest);
    }

    #[test]
    fn offers_without_a_token_have_none(value in "((wootz.jwt.)?[a-z.]{0,4}[, ]{0,2}){0,5}") {
        let rest = subprotocols_without_token(&value);
        prop_assert_eq!(from_subprotocols(rest.split(',').map(str::trim)), None);
    }

    #[test]
    fn no_header_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        let given = [b"Bearer ", &value[..]].concat();
        let token = from_authorization(&given);
        prop_assert_eq!(token.is_some(), !value.trim_ascii().is_empty());
        prop_assert!(from_authorization(&value).is_none() || value.len() > 7);
    }
}
