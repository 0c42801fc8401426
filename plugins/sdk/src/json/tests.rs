use proptest::prelude::*;

use super::*;

fn merged(base: &str, ours: &str, theirs: &str, rules: &Rules) -> Result<String, Vec<(String, &'static str)>> {
    let base = Node::parse(base).expect("base");
    let ours = Node::parse(ours).expect("ours");
    let theirs = Node::parse(theirs).expect("theirs");
    merge(Some(&base), &ours, &theirs, rules).map_err(|conflicts| conflicts.into_iter().map(|one| (one.pointer, one.reason)).collect())
}

#[test]
fn values_are_read_as_written() {
    let node = Node::parse(" {\"a\" : [1.50, -0, 1e400, \"\\u00e9\\ud83d\\ude00\"], \"\\u0062\": null } ").expect("fits");
    assert_eq!(node.canonical(), "{\"a\":[1.50,-0,1e400,\"é😀\"],\"b\":null}");
    assert_eq!(node.get("b").map(|node| node.raw), Some("null"));
}

#[test]
fn what_is_not_json_is_refused_with_its_line() {
    let cases = [
        ("", "ends where a value"),
        ("{\"a\":1,}", "expected `\"`"),
        ("{\"a\":1 \"b\":2}", "expected `}`"),
        ("[1,]", "expected a value"),
        ("01", "stands after"),
        ("\"\\ud800\"", "surrogate"),
        ("\"\\u00g0\"", "four hexadecimal"),
        ("\"a\nb\"", "control character"),
        ("{\"a\":1,\n\"a\":2}", "twice"),
        ("// no\n1", "expected a value"),
        ("\"\\u12", "four hexadecimal"),
        ("\"\\", "escape"),
    ];
    for (text, what) in cases {
        let error = Node::parse(text).expect_err(text);
        assert!(error.what.contains(what), "{text:?} gives {error}");
    }
    assert_eq!(Node::parse("{\n\n\"a\": x}").expect_err("x").line, 3);
    let deep = "[".repeat(DEPTH_MAX + 1);
    assert!(Node::parse(&deep).expect_err("deep").what.contains("nested deeper"));
}

#[test]
fn members_of_both_sides_are_kept_and_formatting_stays() {
    let base = "{\n  \"name\": \"x\",\n  \"deps\": {\n    \"a\": \"1\",\n    \"d\": \"1\"\n  },\n  \"tags\": [ \"k\" ]\n}";
    let ours = base.replace("    \"d\"", "    \"b\": \"2\",\n    \"d\"");
    let theirs = base.replace("    \"d\"", "    \"c\": \"3\",\n    \"d\"").replace("[ \"k\" ]", "[]");
    let expected = "{\n  \"name\": \"x\",\n  \"deps\": {\n    \"a\": \"1\",\n    \"b\": \"2\",\n    \"c\": \"3\",\n    \"d\": \"1\"\n  },\n  \"tags\": []\n}";
    assert_eq!(merged(base, &ours, &theirs, &Rules::default()).as_deref(), Ok(expected));
}

#[test]
fn inline_and_empty_objects_keep_their_style() {
    let rules = Rules::default();
    assert_eq!(merged("{\"a\":1}", "{\"a\":1,\"b\":2}", "{\"a\":1,\"c\":3}", &rules).as_deref(), Ok("{\"a\":1,\"b\":2,\"c\":3}"));
    assert_eq!(merged("{}", "{ \"b\": 2 }", "{ \"a\": 1 }", &rules).as_deref(), Ok("{ \"b\": 2, \"a\": 1 }"));
    assert_eq!(
        merged("{\"a\": {}, \"z\": 0}", "{\"a\": {\"y\": 1}, \"z\": 0}", "{\"a\": {\"x\": 1}, \"z\": 0}", &rules).as_deref(),
        Ok("{\"a\": {\"y\": 1, \"x\": 1}, \"z\": 0}")
    );
}

#[test]
fn additions_stand_behind_their_neighbour() {
    let ours = "{\"z\":1,\"o\":1,\"b\":1}";
    let theirs = "{\"new\":1,\"z\":1,\"t\":1,\"b\":1}";
    assert_eq!(merged("{\"z\":1,\"b\":1}", ours, theirs, &Rules::default()).as_deref(), Ok("{\"new\":1,\"z\":1,\"o\":1,\"t\":1,\"b\":1}"));
}

#[test]
fn disagreements_are_typed_pointers() {
    let rules = Rules::default();
    let found = merged(
        "{\"a\":{\"x/y\":1},\"l\":[1],\"r\":1}",
        "{\"a\":{\"x/y\":2},\"l\":[1,2]}",
        "{\"a\":{\"x/y\":3},\"l\":[1,3],\"r\":2}",
        &rules,
    );
    let expected = vec![
        ("/a/x~1y".to_owned(), "both sides changed this, differently"),
        ("/l".to_owned(), "both sides changed this list"),
        ("/r".to_owned(), "one side removed what the other changed"),
    ];
    assert_eq!(found.map_err(sorted), Err(expected));
}

fn sorted(mut conflicts: Vec<(String, &'static str)>) -> Vec<(String, &'static str)> {
    conflicts.sort();
    conflicts
}

#[test]
fn lists_merge_by_their_rule() {
    let rules = Rules {
        default: ArrayRule::Equal,
        at: vec![("/tags".to_owned(), ArrayRule::Set), ("/*/steps".to_owned(), ArrayRule::By("id".to_owned()))],
    };
    let base = "{\"tags\":[\"a\",\"b\"],\"p\":{\"steps\":[{\"id\":1,\"n\":0},{\"id\":2,\"n\":0}]}}";
    let ours = "{\"tags\":[\"a\",\"b\",\"c\"],\"p\":{\"steps\":[{\"id\":1,\"n\":5},{\"id\":2,\"n\":0}]}}";
    let theirs = "{\"tags\":[\"b\",\"d\"],\"p\":{\"steps\":[{\"id\":1,\"n\":0},{\"id\":3,\"n\":7},{\"id\":2,\"n\":1}]}}";
    assert_eq!(
        merged(base, ours, theirs, &rules).as_deref(),
        Ok("{\"tags\":[\"b\",\"c\",\"d\"],\"p\":{\"steps\":[{\"id\":1,\"n\":5},{\"id\":3,\"n\":7},{\"id\":2,\"n\":1}]}}")
    );
    let clash = merged(base, ours, &theirs.replace("\"n\":0},{\"id\":3", "\"n\":9},{\"id\":3"), &rules);
    assert_eq!(clash, Err(vec![("/p/steps/0/n".to_owned(), "both sides changed this, differently")]));
}

/// Small documents over few keys, so that sides meet.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![Just("null".to_owned()), (0..3u8).prop_map(|n| n.to_string()), "[ab]".prop_map(|text| format!("\"{text}\""))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| format!("{{{}}}", map.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect::<Vec<_>>().join(", "))),
        ]
    })
}

/// The places of a document and what stands there: the naive view that the merge is held against.
fn places(node: &Node<'_>, at: &str, out: &mut Vec<(String, String)>) {
    match &node.kind {
        Kind::Object(members) if !members.is_empty() => {
            for member in members {
                places(&member.value, &format!("{at}/{}", member.key), out);
            }
        }
        Kind::Plain | Kind::Text(_) | Kind::Array(_) | Kind::Object(_) => out.push((at.to_owned(), node.canonical())),
    }
}

fn place_map(node: &Node<'_>) -> std::collections::BTreeMap<String, String> {
    let mut out = Vec::new();
    places(node, "", &mut out);
    out.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_change_of_one_side_is_never_lost(base in document(), ours in document(), theirs in document()) {
        let (b, o, t) = (Node::parse(&base).expect("b"), Node::parse(&ours).expect("o"), Node::parse(&theirs).expect("t"));
        if let Ok(text) = merge(Some(&b), &o, &t, &Rules::default()) {
            let result = Node::parse(&text).expect("the result is JSON");
            let (b, o, t, r) = (place_map(&b), place_map(&o), place_map(&t), place_map(&result));
            let empty = |value: Option<&String>| value.is_none_or(|value| value == "{}");
            for place in b.keys().chain(o.keys()).chain(t.keys()) {
                let (bv, ov, tv, rv) = (b.get(place), o.get(place), t.get(place), r.get(place));
                // An empty object is a place only as long as nothing stands in it.
                if ov == tv && !empty(ov) { prop_assert_eq!(rv, ov, "{} agreed", place); }
                if bv == tv && ov != bv && !empty(ov) { prop_assert_eq!(rv, ov, "{} ours", place); }
                if bv == ov && tv != bv && !empty(tv) { prop_assert_eq!(rv, tv, "{} theirs", place); }
                if bv == tv && ov.is_none() && !empty(bv) { prop_assert_eq!(rv, None, "{} removed by ours", place); }
                if bv == ov && tv.is_none() && !empty(bv) { prop_assert_eq!(rv, None, "{} removed by theirs", place); }
            }
        }
    }

    #[test]
    fn sides_that_agree_or_stand_still_never_conflict(base in document(), side in document()) {
        let (b, s) = (Node::parse(&base).expect("b"), Node::parse(&side).expect("s"));
        for (base, ours, theirs) in [(&b, &s, &s), (&b, &s, &b), (&b, &b, &s), (&s, &s, &s)] {
            let text = merge(Some(base), ours, theirs, &Rules::default()).expect("no conflict");
            prop_assert!(Node::parse(&text).expect("JSON").same(&s));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}\",:\\\\u0-9a-f .eE+-]{0,24}") {
        if let Ok(node) = Node::parse(&text) {
            prop_assert!(Node::parse(&node.canonical()).expect("canonical text is JSON").same(&node));
        }
    }
}
