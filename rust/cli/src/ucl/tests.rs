use proptest::prelude::*;

use super::*;

/// The text as JSON, with the objects of a repeated key side by side.
fn json(text: &str) -> String {
    fn object(object: &Object) -> String {
        let entries: Vec<String> =
            object.0.iter().map(|entry| format!("{:?}:{}", entry.key, value(&entry.node.value))).collect();
        format!("{{{}}}", entries.join(","))
    }
    fn value(it: &Value) -> String {
        match it {
            Value::Null => "null".into(),
            Value::Bool(on) => on.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Real(number) => format!("{number:?}"),
            Value::Text(text) => format!("{text:?}"),
            Value::Array(nodes) => {
                format!("[{}]", nodes.iter().map(|node| value(&node.value)).collect::<Vec<_>>().join(","))
            }
            Value::Object(inner) => object(inner),
        }
    }
    object(&parse(text).unwrap_or_else(|error| panic!("{text}: {error} at {}", error.at)))
}

/// Where the text is not understood, and why.
fn fault(text: &str) -> (usize, String) {
    let error = parse(text).expect_err(text);
    (error.at, error.reason)
}

#[test]
fn one_thing_can_be_written_in_many_ways() {
    for text in [
        r#"{"a": {"b": "x y", "c": 10}}"#,
        "a { b = x y; c = 10; }",
        "a { b = x y, c = 10 }",
        "a = { b: x y\n c: 10\n }",
        "a: {\n  b x y\n  c 10\n}",
        "a\n{\n'b' = 'x y';;\n\"c\" = 10;\n};",
        "# first\na { # second\n b = x y # third\n /* fourth /* fifth */ */ c = /**/ 10 }",
        "\u{feff}a {b=x y;c=10}",
        "a {\r\n b = x y\r\n c = 10\r\n}\r\n",
        "{ a { b = \"x y\"\n c = 10 } };\n",
    ] {
        assert_eq!(json(text), r#"{"a":{"b":"x y","c":10}}"#, "{text}");
    }
}

#[test]
fn several_keys_before_a_brace_are_objects_in_each_other() {
    assert_eq!(json("a b { c = 1 }"), r#"{"a":{"b":{"c":1}}}"#);
    assert_eq!(json("a \"b\" 'd e' { c = 1 }\nf g"), r#"{"a":{"b":{"d e":{"c":1}}},"f":"g"}"#);
    assert_eq!(json("a b [1, 2]"), r#"{"a":{"b":[1,2]}}"#);
    assert_eq!(json("a b; c { d = 1 }"), r#"{"a":"b","c":{"d":1}}"#);
}

#[test]
fn repeated_keys_are_kept_in_order() {
    assert_eq!(json("a = 1; b = 2; a = 3"), r#"{"a":1,"b":2,"a":3}"#);
}

#[test]
fn words_have_their_meaning() {
    for (word, value) in [
        ("10", "10"),
        ("-10", "-10"),
        ("0xfF", "255"),
        ("-0x10", "-16"),
        ("007", "7"),
        ("10k", "10000"),
        ("10K", "10000"),
        ("2m", "2000000"),
        ("1g", "1000000000"),
        ("10kb", "10240"),
        ("1MB", "1048576"),
        ("1Gb", "1073741824"),
        ("1.5", "1.5"),
        ("-1.5k", "-1500.0"),
        ("1e3", "1000.0"),
        ("1E-1", "0.1"),
        ("10ms", "0.01"),
        ("0.2s", "0.2"),
        ("10min", "600.0"),
        ("1h", "3600.0"),
        ("1d", "86400.0"),
        ("1w", "604800.0"),
        ("1y", "31536000.0"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("true", "true"),
        ("Yes", "true"),
        ("ON", "true"),
        ("false", "false"),
        ("no", "false"),
        ("off", "false"),
        ("null", "null"),
        ("10.0.0.1", "\"10.0.0.1\""),
        ("1.", "\"1.\""),
        (".5", "\".5\""),
        ("1e", "\"1e\""),
        ("0x", "\"0x\""),
        ("0xg", "\"0xg\""),
        ("10q", "\"10q\""),
        ("--1", "\"--1\""),
        ("+1", "\"+1\""),
        ("1 2", "\"1 2\""),
        ("yes sir", "\"yes sir\""),
        ("/usr/lib/rtpp_acct_csv.so", "\"/usr/lib/rtpp_acct_csv.so\""),
        ("it's", "\"it's\""),
        ("5$", "\"5$\""),
        ("\"10\"", "\"10\""),
        ("'yes'", "\"yes\""),
    ] {
        assert_eq!(json(&format!("a = {word}")), format!("{{\"a\":{value}}}"), "{word}");
    }
}

#[test]
fn strings_have_the_escapes_of_json() {
    assert_eq!(
        json(r#"a = "\"\\\/\b\f\n\r\t\u0041\ud83d\ude00""#),
        format!("{{\"a\":{:?}}}", "\"\\/\u{8}\u{c}\n\r\tA😀")
    );
    assert_eq!(json(r"a = '\n \' \\ '"), format!("{{\"a\":{:?}}}", r"\n ' \\ "));
}

#[test]
fn an_empty_text_is_an_empty_object() {
    for text in ["", " \n", "# only this", "{}", "{ }\n;", "/* a */"] {
        assert_eq!(parse(text), Ok(Object::default()), "{text}");
    }
}

#[test]
fn mistakes_have_a_place_and_a_reason() {
    for (text, at, reason) in [
        ("a { b = 1", 2, "the brace is not closed"),
        ("a = [1, 2", 4, "the bracket is not closed"),
        ("a = 1 }", 6, "the brace closes nothing"),
        ("{ a = 1 } b", 10, "something follows the last brace"),
        ("[1]", 0, "the outermost value is an array, it must be an object"),
        ("a = \"x", 4, "the quotation mark is not closed"),
        ("a = \"x\n\"", 4, "the quotation mark is not closed in its line"),
        ("/* x", 0, "the comment is not closed"),
        ("a = \"\\x\"", 5, "no escape begins like this"),
        ("a = \"\\u12\"", 5, "\\u needs four hexadecimal digits that make a character"),
        ("a = \"\\ud800\"", 5, "\\u needs four hexadecimal digits that make a character"),
        ("a = \"\\ud800\\u0041\"", 5, "\\u needs four hexadecimal digits that make a character"),
        ("a", 0, "the key a has no value"),
        ("a;", 0, "the key a has no value"),
        ("x { a }", 4, "the key a has no value"),
        ("a\nb = 1", 0, "the key a has no value"),
        ("a = ", 4, "a value was expected"),
        ("a = ;", 4, "a value was expected"),
        ("= 1", 0, "a key was expected, not '='"),
        ("a = [1 2 }", 9, "the value before ends here, but ; or a line end is missing"),
        ("a = \"x\" y", 8, "the value before ends here, but ; or a line end is missing"),
        ("a = x { }", 6, "the value before ends here, but ; or a line end is missing"),
        ("a = x\u{0}y", 5, "'\\0' is not possible here"),
        (".include \"x\"", 0, "macros such as .include are not supported"),
        ("m { .include \"x\" }", 4, "macros such as .include are not supported"),
        ("a = x/${X}/y", 6, "variables ($NAME, ${NAME}) are not supported"),
        ("a = \"x $X\"", 4, "variables ($NAME, ${NAME}) are not supported"),
        (
            "a = <<EOD\nx\nEOD\n",
            4,
            "here-documents (<<) are not supported, write a string with quotation marks",
        ),
        ("a = 9223372036854775808", 4, "9223372036854775808: the number is too large"),
        ("a = 9223372036854775807k", 4, "9223372036854775807k: the number is too large"),
        ("a = 1e999", 4, "1e999: the number is too large"),
    ] {
        assert_eq!(fault(text), (at, reason.to_owned()), "{text}");
    }
}

#[test]
fn depth_has_a_limit() {
    let nested = |depth: usize| format!("a = {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(64)).is_ok());
    assert_eq!(fault(&nested(65)).1, "values are nested too deeply");
    for opening in ["[", "{a", "a{", "a ", "/*"] {
        let text = format!("a = {}", opening.repeat(100_000));
        let _ = parse(&text);
        let _ = parse(&format!("a {} {{", "b ".repeat(20_000)));
    }
}

#[test]
fn places_are_told_as_editors_do() {
    let text = "a\nbé c\n";
    let at = |at: usize| Position::of(text, at).to_string();
    assert_eq!(
        [at(0), at(1), at(2), at(5), at(6), at(8), at(99)],
        ["1:1", "1:2", "2:1", "2:3", "2:4", "3:1", "3:1"]
    );
}

/// A value that JSON has too.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let text = "[^$]{0,12}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map(text, inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::hash_map(text, tree, 0..4)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(on) => (*on).into(),
        Value::Integer(number) => (*number).into(),
        Value::Real(number) => (*number).into(),
        Value::Text(text) => text.clone().into(),
        Value::Array(nodes) => nodes.iter().map(|node| to_json(&node.value)).collect(),
        Value::Object(object) => {
            object.0.iter().map(|entry| (entry.key.clone(), to_json(&entry.node.value))).collect()
        }
    }
}

/// Words, marks and spaces of the language, in any order.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "{", "}", "[", "]", "=", ":", ";", ",", "\n", " ", "#", "/*", "*/", "\"", "'", "\\", "\\u00",
            "a", "b", "10k", "0x", "1.5e", "yes", "$", "<<", ".", "é",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn all_of_json_is_read_as_json_does(value in any_json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let read = parse(&text);
            prop_assert!(read.is_ok(), "{}: {:?}", text, read);
            prop_assert_eq!(to_json(&Value::Object(read.unwrap())), value.clone(), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_it_panic_and_faults_are_in_it(text in any_text()) {
        if let Err(error) = parse(&text) {
            prop_assert!(text.is_char_boundary(error.at), "{:?}", error);
        }
    }

    #[test]
    fn separators_comments_and_marks_change_nothing(
        words in prop::collection::vec("x[a-z ]{0,6}[a-z]", 1..6),
        styles in prop::collection::vec(0..6usize, 6),
    ) {
        let entry = |(n, word): (usize, &String)| match styles[n] {
            0 => format!("k{n} = {word};"),
            1 => format!("k{n}: {word}\n"),
            2 => format!("\"k{n}\" = \"{word}\","),
            3 => format!("k{n} '{word}' # no }} here\n"),
            4 => format!("/* ; */ k{n}={word} /* {{ */;;"),
            _ => format!("k{n}\t{word} \r\n"),
        };
        let body: String = words.iter().enumerate().map(entry).collect();
        let plain = words.iter().enumerate().map(|(n, word)| format!("\"k{n}\":{word:?}"));
        let expected = format!("{{{}}}", plain.collect::<Vec<_>>().join(","));
        prop_assert_eq!(json(&body), expected.clone());
        prop_assert_eq!(json(&format!("s {{ {body} }}")), format!("{{\"s\":{expected}}}"));
    }
}
