use super::*;

use proptest::prelude::*;

use super::frame::{Frame, frame};

/// What lies at each path, for comparisons.
fn found(data: &[u8], serializer: Serializer, paths: &[&str]) -> Result<Vec<Option<Value<'static>>>, Malformed> {
    let paths: Vec<KeyPath> = paths.iter().map(|path| KeyPath::parse(path).expect("a path")).collect();
    let found = find(data, serializer, &paths)?;
    Ok(found.values().map(|value| value.map(|value| owned(value.clone()))).collect())
}

fn owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Bool(value) => Value::Bool(value),
        Value::Int(value) => Value::Int(value),
        Value::Float(written) => Value::Float(written.to_vec().leak()),
        Value::Bytes(bytes) => Value::Bytes(bytes.into_owned().into()),
        Value::Enum(case) => Value::Enum(case.to_vec().leak()),
        Value::Array => Value::Array,
        Value::Object => Value::Object,
        Value::Unresolved => Value::Unresolved,
    }
}

fn one(data: &str, path: &str) -> Option<Value<'static>> {
    let mut all = found(data.as_bytes(), Serializer::Auto, &[path]).unwrap_or_else(|error| panic!("{data:?}: {error}"));
    all.remove(0)
}

fn text(text: &str) -> Option<Value<'static>> {
    Some(Value::Bytes(text.as_bytes().to_vec().into()))
}

fn int(number: i64) -> Option<Value<'static>> {
    Some(Value::Int(number))
}

#[test]
fn each_kind_of_value_is_found_in_each_format() {
    let variables = [
        ("n", "N;", Some(Value::Null)),
        ("b", "b:1;", Some(Value::Bool(true))),
        ("i", "i:-5;", int(-5)),
        ("f", "d:1.0E+25;", Some(Value::Float(b"1.0E+25"))),
        ("s", "s:2:\"hi\";", text("hi")),
        ("S", "S:2:\"\\68i\";", text("hi")),
        ("e", "E:6:\"Role:A\";", Some(Value::Enum(b"Role:A"))),
        ("a", "a:0:{}", Some(Value::Array)),
        ("o", "O:8:\"stdClass\":0:{}", Some(Value::Object)),
    ];
    let join =
        |of: fn(&str, &str) -> String| variables.iter().map(|(name, value, _)| of(name, value)).collect::<String>();
    let names = join(|name, value| format!("{name}|{value}"));
    let lengths = join(|name, value| format!("\u{1}{name}{value}"));
    let whole = format!("a:9:{{{}}}", join(|name, value| format!("s:1:\"{name}\";{value}")));
    let mut paths = variables.each_ref().map(|(name, ..)| *name).to_vec();
    let mut expected = variables.each_ref().map(|(.., value)| value.clone()).to_vec();
    paths.push("nothing");
    expected.push(None);
    for (data, serializer) in
        [(whole, Serializer::PhpSerialize), (names, Serializer::Php), (lengths, Serializer::PhpBinary)]
    {
        for serializer in [serializer, Serializer::Auto] {
            assert_eq!(found(data.as_bytes(), serializer, &paths).as_ref(), Ok(&expected), "{serializer:?} {data:?}");
        }
    }
}

#[test]
fn strings_are_borrowed_from_the_session() {
    let data = b"id|s:5:\"alice\";";
    let found = find(data, Serializer::Php, &[KeyPath::parse("id").expect("a path")]).expect("a session");
    let Some(Value::Bytes(Cow::Borrowed(id))) = found.value(0) else { panic!("no borrowed string") };
    assert!(data.as_ptr_range().contains(&id.as_ptr()));
}

#[test]
fn a_path_reaches_through_arrays_and_objects_and_a_key_with_dots_comes_first() {
    let data =
        "auth|a:2:{i:0;s:1:\"x\";s:4:\"user\";O:1:\"U\":2:{s:5:\"\0*\0id\";i:7;s:7:\"\0U\0name\";s:1:\"n\";}}a.b|i:1;";
    assert_eq!(one(data, "auth.user.id"), int(7));
    assert_eq!(one(data, "auth.user.name"), text("n"));
    assert_eq!(one(data, "auth.0"), text("x"));
    assert_eq!(one(data, "auth.00"), None);
    assert_eq!(one(data, "auth.user.id.more"), None);
    assert_eq!(one(data, "a.b"), int(1));
    assert_eq!(one("a|a:1:{s:1:\"b\";i:2;}a.b|i:1;", "a.b"), int(1));
    assert_eq!(one("a.b|i:1;a|a:1:{s:1:\"b\";i:2;}", "a.b"), int(1));
    assert_eq!(one("a|a:1:{s:1:\"b\";i:2;}", "a.b"), int(2));
}

#[test]
fn the_public_property_is_meant_where_a_class_has_another_of_the_same_name() {
    let both = ["s:2:\"id\";i:1;s:5:\"\0P\0id\";i:2;", "s:5:\"\0P\0id\";i:2;s:2:\"id\";i:1;"];
    for properties in both {
        assert_eq!(one(&format!("u|O:1:\"U\":2:{{{properties}}}"), "u.id"), int(1));
    }
    assert_eq!(one("u|a:1:{s:5:\"\0P\0id\";i:2;}", "u.id"), None, "an array has no properties");
}

#[test]
fn the_last_of_equal_keys_wins_with_all_that_it_holds() {
    assert_eq!(one("id|i:1;id|i:2;", "id"), int(2));
    assert_eq!(one("a|a:2:{s:2:\"id\";i:1;s:2:\"id\";i:2;}", "a.id"), int(2));
    assert_eq!(one("a|a:2:{s:1:\"5\";i:1;i:5;i:2;}", "a.5"), int(2));
    assert_eq!(one("a|a:1:{s:2:\"id\";i:1;}a|i:5;", "a.id"), None);
    assert_eq!(one("a|a:1:{s:2:\"id\";i:1;}a|a:0:{}", "a.id"), None);
    assert_eq!(one(r#"{"id":1,"a":{"id":1},"id":2,"a":{}}"#, "id"), int(2));
    assert_eq!(one(r#"{"a":{"id":1},"a":{}}"#, "a.id"), None);
}

#[test]
fn references_lead_to_the_value_of_their_number() {
    assert_eq!(one("a|i:1;b|a:2:{i:0;i:7;i:1;i:8;}c|R:2;d|R:1;", "c.1"), int(8));
    assert_eq!(one("a|i:1;b|a:2:{i:0;i:7;i:1;i:8;}c|R:2;d|R:1;", "d"), int(1));
    assert_eq!(one("a:2:{s:1:\"a\";i:5;s:2:\"id\";R:2;}", "id"), int(5));
    assert_eq!(one("\u{1}ai:1;\u{2}idR:1;", "id"), int(1));
    // `r` has a number of its own, `R` has none.
    let objects = "a|O:1:\"U\":1:{s:2:\"id\";i:9;}b|r:1;c|R:2;d|i:4;e|R:4;f|R:3;";
    assert_eq!(one(objects, "b.id"), int(9));
    assert_eq!(one(objects, "c"), int(9));
    assert_eq!(one(objects, "e"), int(4));
    assert_eq!(one(objects, "f.id"), int(9));
    // Round and round.
    assert_eq!(one("a:1:{s:1:\"a\";R:1;}", "a.a.a.a.a"), Some(Value::Array));
    assert_eq!(one("o|O:1:\"U\":2:{s:1:\"o\";r:1;s:2:\"id\";i:3;}", "o.o.o.o.id"), int(3));
}

#[test]
fn a_reference_to_what_is_not_there_is_malformed() {
    for data in [
        "a|R:1;",
        "a|i:1;b|R:2;",
        "a|i:1;b|R:999999999;",
        "a|i:1;b|R:99999999999999999999999;",
        "a|i:1;b|r:1;",
        "a|r:1;",
        "a|R:0;",
    ] {
        assert!(found(data.as_bytes(), Serializer::Php, &["a", "b"]).is_err(), "{data}");
    }
}

#[test]
fn values_inside_a_class_of_its_own_format_are_numbered_where_that_can_be_known() {
    let known = "s|C:1:\"S\":26:{a:2:{i:0;i:1;i:1;s:1:\"x\";}}x|i:5;id|R:5;";
    assert_eq!(one(known, "id"), int(5));
    assert_eq!(one(known, "s"), Some(Value::Object));
    assert_eq!(one(known, "s.0"), None);
    let unknown = "x|i:5;s|C:1:\"S\":3:{abc}y|i:6;id|R:3;before|R:1;";
    assert_eq!(one(unknown, "id"), Some(Value::Unresolved));
    assert_eq!(one(unknown, "before"), int(5));
    assert_eq!(one(unknown, "y"), int(6));
}

#[test]
fn json_is_read_and_its_numbers_are_phps() {
    let data = r#" {"id":5,"auth":{"list":[{"x":1},{"id":"\u00fc"}],"f":1.5,"big":9223372036854775808,"n":null,"t":true}, "a.b":"c"}"#;
    let paths = [
        "id",
        "auth.list.1.id",
        "auth.f",
        "auth.big",
        "auth.n",
        "auth.t",
        "a.b",
        "auth.list",
        "auth",
        "auth.list.2",
        "x",
    ];
    let expected = vec![
        int(5),
        text("ü"),
        Some(Value::Float(b"1.5")),
        Some(Value::Float(b"9223372036854775808")),
        Some(Value::Null),
        Some(Value::Bool(true)),
        text("c"),
        Some(Value::Array),
        Some(Value::Object),
        None,
        None,
    ];
    assert_eq!(found(data.as_bytes(), Serializer::Json, &paths).as_ref(), Ok(&expected));
    assert_eq!(found(&data.as_bytes()[1..], Serializer::Auto, &paths).as_ref(), Ok(&expected));
    let error = |data: &str| found(data.as_bytes(), Serializer::Json, &["id"]).map_err(|error| error.at);
    for (data, at) in [("5", 0), ("{\"id\":1", 6), ("{\"id\":1}x", 8), ("{\n\"id\":,\n}", 7), (" null", 1)] {
        assert_eq!(error(data), Err(at), "{data}");
    }
    let deep = format!("{{\"id\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(one(&deep, "id"), Some(Value::Array));
}

#[test]
fn auto_takes_no_format_for_another_whatever_a_visitor_has_written() {
    // Each is one visitor's string in a session whose only other variable is his id, 5.
    let injected = "|i:0;id|i:1;x|a:1:{i:0;s:0:\"";
    let array = format!("a:2:{{s:1:\"x\";s:{}:\"{injected}\";s:2:\"id\";i:5;}}", injected.len());
    assert_eq!(one(&array, "id"), int(5));
    let lengths = format!("\u{1}xs:{}:\"{injected}\";\u{2}idi:5;", injected.len());
    assert_eq!(one(&lengths, "id"), int(5));
    let long = "n".repeat(42);
    let lengths = format!("*{long}s:{}:\"{injected}\";\u{2}idi:5;", injected.len());
    assert_eq!(found(lengths.as_bytes(), Serializer::PhpBinary, &["id"]), Ok(vec![int(5)]));
    let refused = found(lengths.as_bytes(), Serializer::Auto, &["id"]).expect_err("no format to be sure of");
    assert!(refused.to_string().contains("serializer has to be named"), "{refused}");
    for name in ["x", "a", "b:1", "O:8", "x[", "ü", "!x", "-", "a:1"] {
        let names = format!("{name}|s:{}:\"{injected}\";id|i:5;", injected.len());
        assert_eq!(one(&names, "id"), int(5), "{name}");
    }
}

#[test]
fn a_name_without_a_value_is_what_old_php_calls_undefined() {
    assert_eq!(one("id|i:1;!id|x|i:2;", "id"), None);
    assert_eq!(one("!x|id|i:2;", "id"), int(2));
    assert_eq!(one("!x|i:3;id|i:2;", "!x"), int(3));
    assert_eq!(found(b"\x81x\x02idi:2;", Serializer::PhpBinary, &["id", "x"]), Ok(vec![int(2), None]));
    assert_eq!(found(b"\x81xi:3;\x02idi:2;", Serializer::PhpBinary, &["id", "x"]), Ok(vec![int(2), int(3)]));
}

#[test]
fn empty_data_are_an_empty_session() {
    for serializer in
        [Serializer::Auto, Serializer::Php, Serializer::PhpSerialize, Serializer::PhpBinary, Serializer::Json]
    {
        assert_eq!(found(b"", serializer, &["id"]), Ok(vec![None]), "{serializer:?}");
    }
}

#[test]
fn a_key_may_hold_what_separates_names() {
    assert_eq!(one("a:2:{s:4:\"a|i:\";i:1;s:2:\"id\";i:5;}", "id"), int(5));
    assert_eq!(found(b"\x06x|i:1;i:2;\x02idi:5;", Serializer::PhpBinary, &["id", "x|i:1;"]), Ok(vec![int(5), int(2)]));
}

#[test]
fn arrays_deeper_than_php_reads_them_are_malformed() {
    let nested = |levels: usize| format!("x|{}a:0:{{}}{}id|i:1;", "a:1:{i:0;".repeat(levels), "}".repeat(levels));
    assert_eq!(one(&nested(4096), "id"), int(1));
    for levels in [4097, 10_000, 1_000_000] {
        assert!(found(nested(levels).as_bytes(), Serializer::Php, &["id"]).is_err(), "{levels}");
    }
    let unclosed = "a:1:{i:0;".repeat(10_000);
    assert!(found(unclosed.as_bytes(), Serializer::PhpSerialize, &["id"]).is_err());
    let custom = (0..10_000).fold(String::new(), |inner, _| format!("C:1:\"S\":{}:{{{inner}}}", inner.len()));
    assert_eq!(found(format!("x|{custom}id|i:1;").as_bytes(), Serializer::Php, &["id"]), Ok(vec![int(1)]));
}

#[test]
fn lengths_that_lie_are_malformed_where_they_stand() {
    for (data, at) in [
        ("id|s:99:\"x\";", 5),
        ("id|s:0:\"x\";", 8),
        ("id|a:4000000000:{i:0;i:1;}", 5),
        ("id|a:2:{i:0;i:1;}", 16),
        ("id|a:0:{i:0;i:1;}", 8),
        ("id|O:8:\"stdClass\":99999999:{}", 18),
        ("id|C:1:\"S\":99:{x}", 11),
        ("id|C:1:\"S\":0:{x}", 14),
        ("id|s:18446744073709551617:\"x\";", 5),
        ("id", 0),
        ("id|", 3),
        ("id|i:1;x", 7),
    ] {
        let error = found(data.as_bytes(), Serializer::Php, &["id"]).expect_err(data);
        assert_eq!(error.at, at, "{data}: {error}");
    }
    let large = vec![b'x'; MAX_BYTES + 1];
    assert_eq!(found(&large, Serializer::Php, &["id"]).map_err(|error| error.at), Err(MAX_BYTES));
}

#[test]
fn more_paths_than_one_walk_can_follow_are_followed_by_several() {
    let data: String = (0..100).map(|number| format!("k{number}|a:1:{{s:1:\"x\";i:{number};}}")).collect();
    let paths: Vec<String> = (0..100).map(|number| format!("k{number}.x")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert_eq!(found(data.as_bytes(), Serializer::Auto, &paths), Ok((0..100).map(int).collect()));
}

#[test]
fn the_first_path_that_leads_to_a_user_names_him_and_an_unclear_one_stops() {
    let paths = ["id", "user_id", "name"].map(|path| KeyPath::parse(path).expect("a path"));
    let user = |data: &'static str| {
        let found = find(data.as_bytes(), Serializer::Auto, &paths).expect("a session");
        found.first_user().map(|user| user.map(Cow::into_owned))
    };
    assert_eq!(user("user_id|i:7;id|i:5;"), Ok(Some("5".to_owned())));
    assert_eq!(user("id|i:0;user_id|s:1:\"0\";name|s:1:\"n\";"), Ok(Some("n".to_owned())));
    assert_eq!(user("id|N;"), Ok(None));
    assert_eq!(user(""), Ok(None));
    assert_eq!(
        user("id|i:0;user_id|a:0:{}name|s:1:\"n\";"),
        Err(Unclear { path: 1, reason: NotAnId::Kind("an array") })
    );
}

const SERIALIZERS: [Serializer; 5] =
    [Serializer::Auto, Serializer::Php, Serializer::PhpSerialize, Serializer::PhpBinary, Serializer::Json];
const PATHS: [&str; 6] = ["id", "a", "a.b", "a.b.c", "0.1", "a.0.b.1"];

/// Serialized values, now and then with a reference, a lie or a class of its own format.
fn serialized() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just("i:0;"),
        Just("i:1;"),
        Just("s:1:\"a\";"),
        Just("s:1:\"b\";"),
        Just("S:1:\"\\63\";"),
        Just("s:4:\"\0*\0c\";")
    ];
    let leaf = prop_oneof![
        Just("N;".to_owned()),
        any::<bool>().prop_map(|value| format!("b:{};", u8::from(value))),
        any::<i64>().prop_map(|value| format!("i:{value};")),
        any::<f64>().prop_map(|value| format!("d:{value:?};")),
        "[ -~]{0,12}".prop_map(|text| format!("s:{}:\"{text}\";", text.len())),
        (1..12_u8).prop_map(|number| format!("R:{number};")),
        (1..12_u8).prop_map(|number| format!("r:{number};")),
        Just("E:3:\"E:X\";".to_owned()),
        "[ -~]{0,9}".prop_map(|text| format!("C:1:\"S\":{}:{{{text}}}", text.len())),
    ];
    let value = leaf.prop_recursive(5, 40, 5, move |inner| {
        let entries = prop::collection::vec((key.clone(), inner), 0..5);
        (entries, 0..3_u8, 0..20_usize).prop_map(|(entries, kind, lie)| {
            let count = entries.len() + usize::from(lie == 0);
            let body: String = entries.iter().map(|(key, value)| format!("{key}{value}")).collect();
            match kind {
                0 => format!("a:{count}:{{{body}}}"),
                1 => format!("O:1:\"U\":{count}:{{{body}}}"),
                _ => {
                    let inner = format!("a:{count}:{{{body}}}");
                    format!("C:1:\"S\":{}:{{{inner}}}", inner.len())
                }
            }
        })
    });
    let name = prop_oneof![Just("id"), Just("a"), Just("0"), Just("a.b"), Just("!a")];
    (prop::collection::vec((name, value), 0..5), 0..3_u8).prop_map(|(variables, format)| {
        let of = |name: &str, value: &str| match format {
            0 => format!("{name}|{value}"),
            1 => format!("s:{}:\"{name}\";{value}", name.len()),
            _ => format!("{}{name}{value}", char::from(name.len() as u8)),
        };
        let all: String = variables.iter().map(|(name, value)| of(name, value)).collect();
        if format == 1 { format!("a:{}:{{{all}}}", variables.len()) } else { all }.into_bytes()
    })
}

fn never_panics(data: &[u8]) {
    for serializer in SERIALIZERS {
        if let Err(error) = found(data, serializer, &PATHS) {
            assert!(error.at <= data.len(), "{error}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
        never_panics(&data);
    }

    #[test]
    fn no_change_of_real_data_makes_it_panic(
        mut data in serialized(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[0-9:;{}\"|aisSdOCErRNb\\\\\0]"), 0..4),
    ) {
        never_panics(&data);
        for (place, byte) in changes {
            if !data.is_empty() {
                let place = place.index(data.len());
                data[place] = byte.as_bytes()[0];
            }
        }
        never_panics(&data);
    }

    #[test]
    fn what_is_cut_off_inside_a_value_is_malformed(data in serialized(), cut in any::<prop::sample::Index>()) {
        let Some(Frame::Whole) = frame(&data, Serializer::Auto) else { return Ok(()) };
        let cut = cut.index(data.len());
        prop_assume!(cut > 0);
        prop_assert!(found(&data[..cut], Serializer::PhpSerialize, &PATHS).is_err());
    }

    #[test]
    fn other_paths_beside_it_change_nothing_about_a_path(data in serialized()) {
        for serializer in SERIALIZERS {
            let together = found(&data, serializer, &PATHS);
            let alone: Result<Vec<_>, Malformed> =
                PATHS.iter().map(|path| Ok(found(&data, serializer, &[path])?.remove(0))).collect();
            match (together, alone) {
                (Ok(together), Ok(alone)) => prop_assert_eq!(together, alone),
                (together, alone) => prop_assert!(together.is_err() && alone.is_err()),
            }
        }
    }
}
