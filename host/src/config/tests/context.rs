//! `[context]` in the configuration: rules of access, policies, quotas.

use pointsman_core::context::rules::{self, Operation, Party, Rule, Rules, Stale, Who};
use pointsman_core::event::Provenance;

use super::*;

fn globs(texts: &[&str]) -> Vec<PathGlob> {
    texts.iter().map(|text| text.parse().expect("a glob")).collect()
}

fn whom(texts: &[&str]) -> Option<Vec<Who>> {
    Some(texts.iter().map(|text| text.parse().expect("it names somebody")).collect())
}

fn context(text: &str, variables: &[(&str, &str)]) -> ContextSettings {
    load(&format!("config_version = 1\n{text}"), variables, &Flags::default()).expect("whole").context
}

#[test]
fn what_is_shipped_is_the_default() {
    let config = Config::shipped(Path::new("/data")).expect("whole");
    assert_eq!(config.context, ContextSettings::default());
    assert_eq!(config.settings(String::new()).context, ContextSettings::default());
    assert_eq!(config.bindings.reconcilers.len(), 2);
}

#[test]
fn rules_are_read_in_their_order() {
    let text = r#"
[[project]]
slug = "demo"
[context]
shared = ["plan", "notes/**"]
quota_mib = 3
documents_max = 10
[[context.rule]]
keys = ["decisions/**", "adr"]
projects = ["demo"]
read = ["all"]
write = ["role:human", "all(rust, review@^1.2)"]
resolve = ["agent:ana", "principal:ci", "plugin:triage"]
administer = []
owners = ["architect"]
stale = "owner-wins"
versions_max = 5
expires_s = 60
[[context.rule]]
keys = ["**"]
stale = "last-writer"
"#;
    let rules = vec![
        Rule {
            keys: globs(&["decisions/**", "adr"]),
            projects: vec!["demo".to_owned()],
            read: whom(&["all"]),
            write: whom(&["role:human", "all(rust, review@^1.2)"]),
            resolve: whom(&["agent:ana", "principal:ci", "plugin:triage"]),
            administer: Some(Vec::new()),
            owners: whom(&["architect"]),
            stale: Some(Stale::OwnerWins),
            versions_max: Some(5),
            expires_ms: Some(60_000),
        },
        Rule { keys: globs(&["**"]), stale: Some(Stale::LastWriter), ..Rule::default() },
    ];
    let shared = globs(&["plan", "notes/**"]);
    let expected = ContextSettings { rules: Rules { shared, rules }, bytes_max: 3 << 20, documents_max: 10 };
    assert_eq!(context(text, &[]), expected);

    let only_rules = context("[[context.rule]]\nkeys = [\"a\"]\nread = [\"all\"]\n", &[]);
    assert_eq!(only_rules.rules.shared, globs(&["**"]), "what the file leaves out stays as shipped");
    assert_eq!((only_rules.bytes_max, only_rules.documents_max), (1 << 30, 100_000));
    let variables =
        [("POINTSMAN_CONTEXT_SHARED", "a, b/*"), ("POINTSMAN_CONTEXT_QUOTA_MIB", "7"), ("POINTSMAN_CONTEXT_DOCUMENTS_MAX", "8")];
    let from_variables = context(text, &variables);
    assert_eq!((from_variables.rules.shared, from_variables.rules.rules), (globs(&["a", "b/*"]), expected.rules.rules));
    assert_eq!((from_variables.bytes_max, from_variables.documents_max), (7 << 20, 8));
    assert!(context("[context]\nshared = []\n", &[]).rules.shared.is_empty(), "then everything is closed");
}

#[test]
fn every_policy_has_its_word_and_every_range_its_ends() {
    let rule = |said: &str| context(&format!("[[context.rule]]\nkeys = [\"a\"]\n{said}\n"), &[]).rules.rules.remove(0);
    for (word, stale) in
        [("merge", Stale::Merge), ("refuse", Stale::Refuse), ("last-writer", Stale::LastWriter), ("owner-wins", Stale::OwnerWins)]
    {
        assert_eq!(rule(&format!("stale = \"{word}\"")).stale, Some(stale));
    }
    assert_eq!(rule("versions_max = 100000").versions_max, Some(100_000));
    assert_eq!(rule("expires_s = 315360000").expires_ms, Some(315_360_000_000));
    assert_eq!(context("[context]\nquota_mib = 1048576\n", &[]).bytes_max, 1 << 40);
    for wrong in [
        "[context]\nquota_mib = 0\n",
        "[context]\nquota_mib = 1048577\n",
        "[context]\ndocuments_max = 10000001\n",
        "[[context.rule]]\nkeys = [\"a\"]\nversions_max = 0\n",
        "[[context.rule]]\nkeys = [\"a\"]\nversions_max = 100001\n",
        "[[context.rule]]\nkeys = [\"a\"]\nexpires_s = 59\n",
        "[[context.rule]]\nkeys = [\"a\"]\nexpires_s = 315360001\n",
    ] {
        let said = refusal(&format!("config_version = 1\n{wrong}"));
        assert!(said.contains("expected a whole number from "), "{said}");
    }
}

#[test]
fn the_rule_in_the_shipped_file_is_one() {
    let start = SHIPPED_FILE.find("# [[context.rule]]").expect("it is shown");
    let example = SHIPPED_FILE[start..].split("\n\n").next().expect("it ends");
    let is_setting = |line: &&str| line.starts_with("[[") || line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '`']));
    let text: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect();
    assert_eq!(text.len(), 11, "the header and every key: {text:?}");
    let rule = context(&text.join("\n"), &[]).rules.rules.remove(0);
    assert_eq!((rule.stale, rule.versions_max), (Some(Stale::Merge), Some(200)));
    assert_eq!(rule.write, whom(&["role:human", "architect"]));
}

#[test]
fn the_rules_in_the_documentation_mean_what_it_says() {
    let page = include_str!("../../../docs/context.md");
    let (_, after) = page.split_once("```toml\n").expect("an example");
    let (example, _) = after.split_once("```").expect("it ends");
    let rules = context(example, &[]).rules;
    let key = "decisions/db".parse().expect("a key");
    let party = |provenance, capabilities| Party { agent: None, name: "x", principal: "x", provenance, capabilities };
    let (skilled, none) = (["architect".parse().expect("a capability")], []);
    let (person, architect, other) =
        (party(Provenance::Human, &none[..]), party(Provenance::Agent, &skilled[..]), party(Provenance::Agent, &none[..]));
    for (project, operation, expected) in [
        ("my-project", Operation::Read, [true, true, true]),
        ("my-project", Operation::Write, [true, true, false]),
        ("my-project", Operation::Resolve, [false, true, false]),
        ("my-project", Operation::Administer, [true, false, false]),
        ("another", Operation::Write, [true, true, false]),
        ("another", Operation::Administer, [false, false, false]),
    ] {
        let place = rules::Place { project, key: &key, creator: None };
        assert_eq!([person, architect, other].map(|party| rules.may(&party, operation, place)), expected, "{project} {operation:?}");
    }
    assert_eq!((rules.stale("my-project", &key), rules.stale("another", &key)), (Stale::Refuse, Stale::Merge));
}

#[test]
fn wrong_globs_and_keys_are_named() {
    insta::assert_snapshot!(
        refusal(
            r#"config_version = 1
[context]
shared = ["", "../x"]
quota_mb = 5
[[context.rule]]
keys = ["decisions/**"]
raed = ["all"]
shared = ["**"]
"#
        ),
        @r#"
        error: `context.shared` is "", expected a glob of document keys, such as "decisions/**" or "plan"
         --> config/pointsman.toml:3:11
          |
        3 | shared = ["", "../x"]
          |           ^^

        error: `context.shared` is "../x", expected a glob of document keys, such as "decisions/**" or "plan"
         --> config/pointsman.toml:3:15
          |
        3 | shared = ["", "../x"]
          |               ^^^^^^

        error: unknown key `quota_mb` in `context`
         --> config/pointsman.toml:4:1
          |
        4 | quota_mb = 5
          | ^^^^^^^^
          = help: did you mean `quota_mib`?

        error: unknown key `raed` in `context.rule`
         --> config/pointsman.toml:7:1
          |
        7 | raed = ["all"]
          | ^^^^
          = help: did you mean `read`?

        error: unknown key `shared` in `context.rule`
         --> config/pointsman.toml:8:1
          |
        8 | shared = ["**"]
          | ^^^^^^
          = help: `shared` belongs in [context]

        5 problems in the configuration; nothing was started
        "#
    );
}

#[test]
fn texts_that_name_nobody_are_named() {
    insta::assert_snapshot!(
        refusal(
            r#"config_version = 1
[[context.rule]]
keys = ["decisions/**"]
write = ["role:humen", "agent:a b", "topic:x"]
resolve = "all"
"#
        ),
        @r#"
        error: `context.rule.write` is "role:humen", expected "all", "agent:NAME", "principal:NAME", "plugin:NAME", "role:human", "role:agent", "role:plugin", or a capability expression such as "all(rust, review)"
         --> config/pointsman.toml:4:10
          |
        4 | write = ["role:humen", "agent:a b", "topic:x"]
          |          ^^^^^^^^^^^^
          = help: did you mean "role:human"?

        error: `context.rule.write` is "agent:a b", expected "all", "agent:NAME", "principal:NAME", "plugin:NAME", "role:human", "role:agent", "role:plugin", or a capability expression such as "all(rust, review)"
         --> config/pointsman.toml:4:24
          |
        4 | write = ["role:humen", "agent:a b", "topic:x"]
          |                        ^^^^^^^^^^^

        error: `context.rule.write` is "topic:x", expected "all", "agent:NAME", "principal:NAME", "plugin:NAME", "role:human", "role:agent", "role:plugin", or a capability expression such as "all(rust, review)"
         --> config/pointsman.toml:4:37
          |
        4 | write = ["role:humen", "agent:a b", "topic:x"]
          |                                     ^^^^^^^^^

        error: `context.rule.resolve` is "all", expected a list
         --> config/pointsman.toml:5:11
          |
        5 | resolve = "all"
          |           ^^^^^
          = help: write `["all"]`

        4 problems in the configuration; nothing was started
        "#
    );
}

#[test]
fn wrong_policies_ranges_and_rules_without_keys_are_named() {
    insta::assert_snapshot!(
        refusal(
            r#"config_version = 1
[[context.rule]]
keys = ["a"]
stale = "last-wirter"
[[context.rule]]
read = ["all"]
[[context.rule]]
keys = []
expires_s = 1
versions_max = "9"
"#
        ),
        @r#"
        error: `context.rule.stale` is "last-wirter", expected "merge" or "refuse" or "last-writer" or "owner-wins"
         --> config/pointsman.toml:4:9
          |
        4 | stale = "last-wirter"
          |         ^^^^^^^^^^^^^
          = help: did you mean "last-writer"?

        error: `context.rule` has no `keys`
         --> config/pointsman.toml:5:1
          |
        5 | [[context.rule]]
          | ^^^^^^^^^^^^^^^^
          = help: add `keys = …`: a list

        error: `context.rule.keys` is empty: the rule is about nothing
         --> config/pointsman.toml:8:8
          |
        8 | keys = []
          |        ^^
          = help: write `["**"]` for all keys

        error: `context.rule.expires_s` is 1, expected a whole number from 60 to 315360000
         --> config/pointsman.toml:9:13
          |
        9 | expires_s = 1
          |             ^

        error: `context.rule.versions_max` is "9", expected a whole number from 1 to 100000
          --> config/pointsman.toml:10:16
           |
        10 | versions_max = "9"
           |                ^^^
           = help: write it without quotes

        5 problems in the configuration; nothing was started
        "#
    );
}

#[test]
fn slips_in_projects_and_variables_are_named() {
    let slug = refusal("config_version = 1\n[[project]]\nslug = \"demo\"\n[[context.rule]]\nkeys = [\"a\"]\nprojects = [\"dmeo\"]\n");
    assert!(slug.contains("`context.rule.projects` names \"dmeo\"") && slug.contains("did you mean \"demo\"?"), "{slug}");
    insta::assert_snapshot!(
        refusal_of_variables(&[
            ("POINTSMAN_CONTEXT_SHARED", "a, /b"),
            ("POINTSMAN_CONTEXT_QUOTA_MB", "5"),
            ("POINTSMAN_CONTEXT_DOCUMENTS_MAX", "many"),
        ]),
        @r#"
        error: `context.documents_max` is "many", expected a whole number from 1 to 10000000
         --> environment variable POINTSMAN_CONTEXT_DOCUMENTS_MAX

        error: no setting belongs to `POINTSMAN_CONTEXT_QUOTA_MB`
         --> environment variable POINTSMAN_CONTEXT_QUOTA_MB
          = help: did you mean `POINTSMAN_CONTEXT_QUOTA_MIB`?

        error: `context.shared` is "/b", expected a glob of document keys, such as "decisions/**" or "plan"
         --> environment variable POINTSMAN_CONTEXT_SHARED

        3 problems in the configuration; nothing was started
        "#
    );
}
