//! Tokens as other libraries make them, and as attackers do.

mod jwt;

use std::time::Duration;

use jwt::{Made, NOW, load, now};
use wootz_session::jwt::{Algorithm, JwtSettings, Rejected, Verifier};

const ALGORITHMS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

fn rejected(verifier: &Verifier, name: &str, token: &str) -> Rejected {
    match verifier.verify(token, now()) {
        Ok(claims) => panic!("{name} was accepted: {claims:?}"),
        Err(rejected) => rejected,
    }
}

fn user(verifier: &Verifier, name: &str, token: &str) -> Option<String> {
    let claims = verifier.verify(token, now()).unwrap_or_else(|rejected| panic!("{name}: {rejected}"));
    claims.user.map(|user| user.to_string())
}

#[test]
fn tokens_of_all_four_algorithms_say_who_it_is_and_until_when() {
    let made = Made::new();
    for verifier in [made.by_files(), made.by_set()] {
        for algorithm in ALGORITHMS {
            for name in ["good", "kid", "late"] {
                let name = format!("{name} {algorithm}");
                assert_eq!(user(&verifier, &name, made.token(&name)).as_deref(), Some("42"));
            }
            let claims = verifier.verify(made.token(&format!("good {algorithm}")), now()).expect("valid");
            assert_eq!(claims.expires, now() + Duration::from_secs(60 + 30), "exp and the leeway");
        }
    }
}

#[test]
fn one_key_alone_verifies_its_own_algorithm_only() {
    let made = Made::new();
    let cases = [
        ("HS256", "secret"),
        ("HS256", "secret_newline"),
        ("RS256", "rsa.pem"),
        ("RS256", "rsa_pkcs1.pem"),
        ("ES256", "ec.pem"),
        ("EdDSA", "ed.pem"),
    ];
    for (algorithm, file) in cases {
        let verifier = load(made.files(&[file]));
        for other in ALGORITHMS {
            let name = format!("good {other}");
            let token = made.token(&name);
            if other == algorithm {
                assert_eq!(user(&verifier, file, token).as_deref(), Some("42"));
            } else {
                let other = Algorithm::of(other).expect("an algorithm");
                assert_eq!(rejected(&verifier, &name, token), Rejected::NoKeyFor(other), "{file}");
            }
        }
    }
}

#[test]
fn what_our_keys_have_not_signed_is_rejected() {
    let made = Made::new();
    let prefixes = [
        "other key HS256",
        "other key RS256",
        "other key ES256",
        "other key EdDSA",
        "other key of this kid",
        "other claims",
        "no signature",
        "short signature",
        "long signature",
        "zero signature",
        "public ",
        "brings ",
        "ecdsa in der",
    ];
    for verifier in [made.by_files(), made.by_set()] {
        for prefix in prefixes {
            for (name, token) in made.tokens(prefix) {
                // A cut signature may end in bits that belong to no byte.
                let reason = rejected(&verifier, name, token);
                let mut expected = vec![Rejected::Signature, Rejected::Malformed("its signature is not base64url")];
                if name.starts_with("public of kid") {
                    expected.push(Rejected::OtherAlgorithm);
                }
                assert!(expected.contains(&reason), "{name}: {reason}");
            }
        }
    }
}

#[test]
fn unsigned_tokens_are_rejected_in_every_spelling() {
    let made = Made::new();
    for verifier in [made.by_files(), made.by_set()] {
        for (name, token) in made.tokens("unsigned") {
            assert_eq!(rejected(&verifier, name, token), Rejected::Unsigned, "{name}");
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let made = Made::new();
    // Each public key alone: no key for HS256 is there, whatever the token was made with.
    for file in ["rsa.pem", "rsa_pkcs1.pem", "ec.pem", "ed.pem"] {
        let verifier = load(made.files(&[file]));
        for (name, token) in made.tokens("public ") {
            let reason = rejected(&verifier, name, token);
            assert_eq!(reason, Rejected::NoKeyFor(Algorithm::Hs256), "{file}: {name}");
        }
    }
}

#[test]
fn an_algorithm_that_is_swapped_is_rejected() {
    let made = Made::new();
    for algorithm in ALGORITHMS {
        for (name, token) in made.tokens(&format!("{algorithm} says ")) {
            assert_eq!(rejected(&made.by_files(), name, token), Rejected::Signature, "{name}");
            assert_eq!(rejected(&made.by_set(), name, token), Rejected::Signature, "{name}");
        }
        for (name, token) in made.tokens(&format!("{algorithm} with kid of ")) {
            assert_eq!(rejected(&made.by_set(), name, token), Rejected::OtherAlgorithm, "{name}");
        }
    }
}

#[test]
fn a_kid_that_no_key_has_is_rejected_and_key_files_have_no_kid() {
    let made = Made::new();
    for (name, token) in made.tokens("unknown kid") {
        assert_eq!(rejected(&made.by_set(), name, token), Rejected::UnknownKey, "{name}");
        assert_eq!(user(&made.by_files(), name, token).as_deref(), Some("42"), "{name}");
    }
    // Both: the set's key of another site is named, so the file's is not tried.
    let both = JwtSettings { jwks_file: Some(made.path("jwks_other.json")), ..made.files(&["rsa.pem"]) };
    let both = load(both);
    assert_eq!(rejected(&both, "kid", made.token("kid RS256")), Rejected::Signature);
    assert_eq!(user(&both, "no kid", made.token("good RS256")).as_deref(), Some("42"));
    assert_eq!(user(&both, "other key", made.token("other key of this kid RS256")).as_deref(), Some("42"));
}

#[test]
fn keys_for_something_else_in_a_set_do_not_verify() {
    let made = Made::new();
    let unusable = ["encrypts", "pss", "signs", "p384", "new", "broken", "off the curve"];
    let set = std::fs::read_to_string(made.path("jwks.json")).expect("a set");
    for kid in unusable {
        assert!(set.contains(kid), "{kid} is in the set");
    }
    // The modulus of these is that of the good key, and still a token with their kid is not accepted.
    let header = r#"{"alg":"RS256","kid":"encrypts"}"#;
    let token = made.token("good RS256").split_once('.').expect("a token").1;
    let header = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
    assert_eq!(rejected(&made.by_set(), "encrypts", &format!("{header}.{token}")), Rejected::UnknownKey);
}

#[test]
fn algorithms_that_are_not_ours_are_rejected() {
    let made = Made::new();
    for verifier in [made.by_files(), made.by_set()] {
        for (name, token) in made.tokens("algorithm ") {
            let expected = match name {
                "algorithm missing" | "algorithm is a list" => Rejected::Malformed("its header has no alg"),
                _ => Rejected::UnknownAlgorithm,
            };
            assert_eq!(rejected(&verifier, name, token), expected, "{name}");
        }
    }
}

#[test]
fn headers_that_demand_or_hide_something_are_rejected() {
    let made = Made::new();
    let verifier = made.by_files();
    for (name, token) in made.tokens("crit") {
        assert_eq!(rejected(&verifier, name, token), Rejected::Critical, "{name}");
    }
    let cases = [
        ("header twice alg", "its header has a name twice"),
        ("header is a list", "its header is no JSON object"),
        ("header is no JSON", "its header is no JSON object"),
        ("header is deep", "its header is nested too deeply"),
        ("kid is a number", "its kid is no text"),
    ];
    for (name, reason) in cases {
        assert_eq!(rejected(&verifier, name, made.token(name)), Rejected::Malformed(reason), "{name}");
    }
}

#[test]
fn texts_that_are_no_token_are_rejected() {
    let made = Made::new();
    let verifier = made.by_files();
    let cases = [
        ("text empty", "it has not three parts"),
        ("text dots", "its header is no JSON object"),
        ("text one part", "it has not three parts"),
        ("text two parts", "it has not three parts"),
        ("text four parts", "it has not three parts"),
        ("text encrypted", "it is encrypted (JWE); only signed tokens are read"),
        ("text padded", "its signature is not base64url"),
        ("text space", "its header is not base64url"),
        ("text newline", "its signature is not base64url"),
        ("text plus", "its signature is not base64url"),
    ];
    for (name, reason) in cases {
        assert_eq!(rejected(&verifier, name, made.token(name)), Rejected::Malformed(reason), "{name}");
    }
    assert!(matches!(rejected(&verifier, "twice", made.token("text twice")), Rejected::Malformed(_)));
    assert_eq!(rejected(&verifier, "too long", made.token("text too long")), Rejected::TooLong);
    assert_eq!(user(&verifier, "long", made.token("text long")).as_deref(), Some("42"));
}

#[test]
fn claims_that_two_parsers_could_read_differently_are_rejected_though_signed() {
    let made = Made::new();
    for (name, token) in made.tokens("claims ") {
        let expected = match name {
            "claims twice sub" | "claims twice sub escaped" | "claims twice inside" => "its claims have a name twice",
            "claims deep" | "claims deeper" => "its claims are nested too deeply",
            _ => "its claims are no JSON object",
        };
        assert_eq!(rejected(&made.by_files(), name, token), Rejected::Malformed(expected), "{name}");
    }
}

#[test]
fn times_that_are_no_times_are_rejected() {
    let made = Made::new();
    let verifier = made.by_files();
    for claim in ["exp", "nbf", "iat"] {
        for (name, token) in made.tokens(&format!("time {claim} ")) {
            let reason = rejected(&verifier, name, token);
            if ["1e400", "NaN", "Infinity"].iter().any(|value| name.ends_with(value)) {
                assert_eq!(reason, Rejected::Malformed("its claims are no JSON object"), "{name}");
            } else {
                assert!(matches!(reason, Rejected::Kind { claim: named, .. } if named == claim), "{name}: {reason}");
            }
        }
    }
}

#[test]
fn a_token_counts_from_nbf_to_exp_give_or_take_the_leeway() {
    let made = Made::new();
    let verifier = made.by_files();
    let leeway = Duration::from_secs(30);
    assert_eq!(rejected(&verifier, "no exp", made.token("claim no exp")), Rejected::NoExpiry);
    assert_eq!(rejected(&verifier, "at exp", made.token("claim at exp")), Rejected::Expired(leeway));
    assert_eq!(rejected(&verifier, "not yet", made.token("claim not yet")), Rejected::NotYet(leeway));
    assert_eq!(user(&verifier, "early", made.token("claim early")).as_deref(), Some("42"));
    for algorithm in ALGORITHMS {
        let name = format!("expired {algorithm}");
        assert_eq!(rejected(&verifier, &name, made.token(&name)), Rejected::Expired(leeway));
    }
    let strict = load(JwtSettings { leeway: Duration::ZERO, ..made.files(&["secret"]) });
    assert_eq!(rejected(&strict, "late", made.token("late HS256")), Rejected::Expired(Duration::ZERO));
    let claims = strict.verify(made.token("claim fraction"), now()).expect("valid for half a second");
    assert_eq!(claims.expires, now() + Duration::from_millis(500));
    assert!(strict.verify(made.token("claim fraction"), claims.expires).is_err(), "at its end it is over");
    // For ever is a leeway, too.
    let endless = load(JwtSettings { leeway: Duration::MAX, ..made.files(&["secret"]) });
    assert!(endless.verify(made.token("good HS256"), now()).is_err(), "a time that no clock has");
    assert!(verifier.verify(made.token("good HS256"), now() - Duration::from_secs(NOW + 1)).is_err(), "before 1970");
}

#[test]
fn issuer_and_audience_are_demanded_where_they_are_set() {
    let made = Made::new();
    let free = load(JwtSettings { audience: String::new(), ..made.files(&["secret"]) });
    let bound = load(JwtSettings {
        issuer: "https://issuer.example".to_owned(),
        audience: "wootz".to_owned(),
        ..made.files(&["secret"])
    });
    for name in ["good HS256", "claim audience list"] {
        assert_eq!(user(&bound, name, made.token(name)).as_deref(), Some("42"), "{name}");
    }
    for (prefix, reason) in [("claim issuer ", Rejected::Issuer), ("claim audience ", Rejected::Audience)] {
        for (name, token) in made.tokens(prefix).into_iter().filter(|(name, _)| *name != "claim audience list") {
            assert_eq!(rejected(&bound, name, token), reason, "{name}");
        }
    }
    // RFC 7519 section 4.1.3: a token that is made for somebody is not for whoever does not say who it is.
    assert_eq!(rejected(&free, "an audience", made.token("good HS256")), Rejected::Unaddressed);
    let name = "claim audience missing";
    assert_eq!(user(&free, name, made.token(name)).as_deref(), Some("42"));
    for name in ["claim issuer other", "claim issuer missing"] {
        assert_eq!(user(&load(made.files(&["secret"])), name, made.token(name)).as_deref(), Some("42"), "{name}");
    }
    for (name, token) in made.tokens("kind ") {
        assert!(matches!(rejected(&free, name, token), Rejected::Kind { .. }), "{name}");
        assert!(matches!(rejected(&bound, name, token), Rejected::Kind { .. } | Rejected::Issuer), "{name}");
    }
}

#[test]
fn the_user_is_a_text_or_a_whole_number() {
    let made = Made::new();
    let verifier = made.by_files();
    let longest = "ü".repeat(64);
    let users = [
        ("user number", Some("42")),
        ("user 0", Some("0")),
        ("user big", Some("18446744073709551615")),
        ("user null", None),
        ("claim user missing", None),
        ("claim user empty", None),
        ("claim user 128 bytes", Some(longest.as_str())),
    ];
    for (name, expected) in users {
        assert_eq!(user(&verifier, name, made.token(name)).as_deref(), expected, "{name}");
    }
    let kind = Rejected::User("is neither a text nor a whole number");
    for name in ["fraction", "negative", "list", "object", "true", "huge"] {
        assert_eq!(rejected(&verifier, name, made.token(&format!("user {name}"))), kind, "{name}");
    }
    let control = rejected(&verifier, "control", made.token("claim user control"));
    assert_eq!(control, Rejected::User("holds a control character"));
    let long = rejected(&verifier, "long", made.token("claim user 129 bytes"));
    assert_eq!(long, Rejected::User("is longer than 128 bytes"));
}

#[test]
fn the_user_claim_may_be_a_path_and_a_name_with_dots_is_a_name_first() {
    let made = Made::new();
    let cases = [
        ("auth.user.id", Some("7")),
        ("https://a.example/id", Some("dotted")),
        ("sub", Some("s")),
        ("auth.user.name", None),
        ("auth.none.id", None),
        ("sub.id", None),
        ("none", None),
        (".", None),
    ];
    for (claim, expected) in cases {
        let verifier = load(JwtSettings { user_claim: claim.to_owned(), ..made.files(&["secret"]) });
        assert_eq!(user(&verifier, claim, made.token("user path")).as_deref(), expected, "{claim}");
    }
    let verifier = load(JwtSettings { user_claim: "auth.user".to_owned(), ..made.files(&["secret"]) });
    assert!(matches!(rejected(&verifier, "an object", made.token("user path")), Rejected::User(_)));
}

#[test]
fn no_reason_holds_anything_of_the_token() {
    let made = Made::new();
    let bound = load(JwtSettings { issuer: "i".to_owned(), audience: "a".to_owned(), ..made.set("jwks.json") });
    let free = made.by_files();
    for (name, token) in made.all() {
        for verifier in [&free, &bound] {
            let Err(rejected) = verifier.verify(token, now()) else { continue };
            for text in [rejected.to_string(), format!("{rejected:?}")] {
                for part in token.split('.').filter(|part| part.len() > 8) {
                    assert!(!text.contains(part), "{name}: {text}");
                }
                assert!(!text.contains("issuer.example") && !text.contains("null"), "{name}: {text}");
            }
        }
    }
}
