//! The messages an operator sees for wrong configurations, and the order of the layers.

use super::*;

mod context;
mod residents;

const FOLDER: &str = "/srv/repo";

fn environment(variables: &[(&str, &str)]) -> Environment {
    let mut all = vec![("HOME", "/home/ana"), ("PATH", "/bin")];
    all.extend_from_slice(variables);
    Environment::of(&all, Path::new(FOLDER))
}

fn load(text: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Config, ConfigError> {
    let file =
        File::parse(Path::new("config/pointsman.toml"), text.to_owned()).map_err(|problem| ConfigError { problems: vec![problem] })?;
    Config::from_layers(Some(file), &environment(variables), flags)
}

fn refusal(text: &str) -> String {
    load(text, &[], &Flags::default()).expect_err("it is wrong").to_string()
}

fn refusal_of_variables(variables: &[(&str, &str)]) -> String {
    Config::from_layers(None, &environment(variables), &Flags::default()).expect_err("it is wrong").to_string()
}

#[test]
fn the_shipped_file_is_whole_and_names_every_key() {
    let config = Config::from_layers(None, &environment(&[]), &Flags::default()).expect("the shipped defaults are whole");
    assert_eq!(config.data_dir, Path::new("/home/ana/.local/share/pointsman"));
    assert_eq!(config, Config::shipped(&config.data_dir).expect("the same without an environment"));
    let names: Vec<&str> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    insta::assert_snapshot!(names.join(" "), @"routing-capability merge-union merge-json merge-imports merge-text context-json context-text workflow-default policy-default");
    for leaf in schema::leaves() {
        let key = leaf.path.last().expect("a leaf has a name");
        let is_there = SHIPPED_FILE.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(is_there, "config/pointsman.toml does not show `{}`", leaf.path.join("."));
    }
    let mut above = "";
    for line in SHIPPED_FILE.lines() {
        let is_setting = !line.starts_with('#') && line.contains(" = ");
        let is_second_of_table = line.starts_with("plugin = ") && (above.starts_with("paths = ") || above.starts_with("[["));
        assert!(!is_setting || above.starts_with('#') || is_second_of_table, "config/pointsman.toml: `{line}` has no comment above it");
        above = line;
    }
}

#[test]
fn later_layers_win_and_lists_are_replaced() {
    let text = "config_version = 1\n[server]\nbind = \"127.0.0.1:1\"\ndrain_ms = 5\n[routing]\nplugins = [\"routing-rules\"]\n[data]\ndir = \"data\"\n";
    let from_file = load(text, &[], &Flags::default()).expect("whole");
    assert_eq!(from_file.server.bind.port(), 1);
    assert_eq!(from_file.server.connections_max, 1024, "a default stays");
    assert_eq!(from_file.bindings.routers("", ""), ["routing-rules"]);
    assert_eq!(from_file.data_dir, Path::new("/srv/repo/config/data"), "relative to the file");

    let variables = [
        ("POINTSMAN_SERVER_BIND", "127.0.0.1:2"),
        ("POINTSMAN_DATA_DIR", "there"),
        ("POINTSMAN_ROUTING_PLUGINS", "routing-capability, routing-rules"),
        ("POINTSMAN_AGENTS_CLAIM_LEASE_S", "60"),
        ("POINTSMAN_TOKEN", "not a setting"),
        ("POINTSMAN_SERVICE_HOST", "10.0.0.7"),
        ("POINTSMAN_PORT", "tcp://10.0.0.7:7878"),
        ("POINTSMAN_PORT_7878_TCP_ADDR", "10.0.0.7"),
        ("XDG_DATA_HOME", "/xdg"),
    ];
    let from_variables = load(text, &variables, &Flags::default()).expect("whole");
    assert_eq!(from_variables.server.bind.port(), 2);
    assert_eq!(from_variables.bindings.routers("", ""), ["routing-capability", "routing-rules"]);
    assert_eq!(from_variables.agents.claim_lease_ms, 60_000);
    assert_eq!(from_variables.data_dir, Path::new("/srv/repo/there"), "relative to the working folder");

    let flags = Flags { bind: Some("127.0.0.1:3".to_owned()), data_dir: Some("~/d".into()), ..Flags::default() };
    let from_flags = load(text, &variables, &flags).expect("whole");
    assert_eq!(from_flags.server.bind.port(), 3);
    assert_eq!(from_flags.data_dir, Path::new("/home/ana/d"));
}

#[test]
fn the_use_cases_get_their_settings() {
    let text = r#"
config_version = 1
[server]
bind = "0.0.0.0:7420"
[[merging.strategy]]
paths = ["docs/**"]
plugin = "merge-union"
[[check]]
name = "test"
command = "cargo test"
limit_s = 7
[[check]]
name = "lint"
command = "cargo clippy"
[plugins.merge-union]
instances = "fresh"
limits = { deadline_ms = 50 }
config = { keep = ["a", 1, true], deep = { x = 1.5 } }
"#;
    let config = load(text, &[], &Flags::default()).expect("whole");
    let settings = config.settings(config.public_url(config.server.bind));
    assert_eq!(settings.public_url, "http://127.0.0.1:7420");
    assert_eq!(settings.bindings.now().mergers.len(), 1, "a list of strategies replaces the shipped one");
    assert_eq!(settings.checks.iter().map(|check| check.limit_ms).collect::<Vec<_>>(), [7_000, 600_000]);
    let plugin = config.plugins.iter().find(|plugin| plugin.name == "merge-union").expect("it is used");
    assert_eq!((plugin.instances, plugin.limits.deadline_ms, plugin.world), (Instances::Fresh, Some(50), World::Merger));
    assert_eq!(plugin.config_json, r#"{"deep":{"x":1.5},"keep":["a",1,true]}"#);
}

#[test]
fn a_component_of_ones_own_gets_its_world_from_where_it_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("config")).expect("made");
    std::fs::write(folder.path().join("mine.wasm"), b"\0asm").expect("written");
    let text = "config_version = 1\n[policy]\nplugin = \"mine\"\n[plugins.mine]\nsource = \"../mine.wasm\"\n";
    std::fs::write(folder.path().join(FILE_IN_REPOSITORY), text).expect("written");
    let config = Config::load(&Environment::of(&[("HOME", "/home/ana")], folder.path()), &Flags::default()).expect("whole");
    let mine = config.plugins.iter().find(|plugin| plugin.name == "mine").expect("it is used");
    assert_eq!(mine.world, World::Policy);
    assert_eq!(mine.origin, ComponentOrigin::File(folder.path().join("mine.wasm")));
    assert!(config.plugins.iter().all(|plugin| plugin.name != "policy-default"), "what nothing uses is not loaded");
}

#[test]
fn an_unknown_key_is_shown_with_the_one_that_was_meant() {
    insta::assert_snapshot!(refusal("config_version = 1\n\n[server]\nbnid = \"127.0.0.1:7420\"\n"), @r#"
    error: unknown key `bnid` in `server`
     --> config/pointsman.toml:4:1
      |
    4 | bnid = "127.0.0.1:7420"
      | ^^^^
      = help: did you mean `bind`?

    1 problem in the configuration; nothing was started
    "#);
}

#[test]
fn a_key_in_the_wrong_section_is_sent_home() {
    insta::assert_snapshot!(refusal("config_version = 1\nbind = \"127.0.0.1:7420\"\n[log]\ndrain_ms = 1\n"), @r#"
    error: unknown key `bind`
     --> config/pointsman.toml:2:1
      |
    2 | bind = "127.0.0.1:7420"
      | ^^^^
      = help: `bind` belongs in [server]

    error: unknown key `drain_ms` in `log`
     --> config/pointsman.toml:4:1
      |
    4 | drain_ms = 1
      | ^^^^^^^^
      = help: `drain_ms` belongs in [server]

    2 problems in the configuration; nothing was started
    "#);
}

#[test]
fn a_key_that_is_nothing_like_any_gets_the_known_ones() {
    insta::assert_snapshot!(refusal("config_version = 1\n[log]\ncolour = \"red\"\n"), @r#"
    error: unknown key `colour` in `log`
     --> config/pointsman.toml:3:1
      |
    3 | colour = "red"
      | ^^^^^^
      = help: known here: `level`, `format`

    1 problem in the configuration; nothing was started
    "#);
}

#[test]
fn a_value_of_another_type_says_what_is_expected() {
    insta::assert_snapshot!(
        refusal("config_version = 1\nserver.drain_ms = \"5000\"\n[agents]\nclaim_lease_s = 1.5\n[server.x]\n[routing]\nplugins = \"routing-rules\"\n"),
        @r#"
    error: `server.drain_ms` is "5000", expected a whole number from 0 to 3600000
     --> config/pointsman.toml:2:19
      |
    2 | server.drain_ms = "5000"
      |                   ^^^^^^
      = help: write it without quotes

    error: `agents.claim_lease_s` is 1.5, expected a whole number from 10 to 604800
     --> config/pointsman.toml:4:17
      |
    4 | claim_lease_s = 1.5
      |                 ^^^

    error: unknown key `x` in `server`
     --> config/pointsman.toml:5:9
      |
    5 | [server.x]
      |         ^
      = help: known here: `bind`, `public_url`, `sibling_url`, `body_bytes_max`, `connections_max`, `header_timeout_ms`, `drain_ms`, `allowed_origins`, `connections_per_peer_max`, `body_timeout_ms`, `write_timeout_ms`, `anonymous`, `tls`

    error: `routing.plugins` is "routing-rules", expected a list
     --> config/pointsman.toml:7:11
      |
    7 | plugins = "routing-rules"
      |           ^^^^^^^^^^^^^^^
      = help: write `["routing-rules"]`

    4 problems in the configuration; nothing was started
    "#
    );
}

#[test]
fn a_value_out_of_range_says_the_range() {
    insta::assert_snapshot!(refusal("config_version = 1\n[git]\nworkers = 0\n\n[agents]\n\tclaim_lease_s = 999999999 # long\n"), @"
    error: `git.workers` is 0, expected a whole number from 1 to 64
     --> config/pointsman.toml:3:11
      |
    3 | workers = 0
      |           ^

    error: `agents.claim_lease_s` is 999999999, expected a whole number from 10 to 604800
     --> config/pointsman.toml:6:18
      |
    6 | 	claim_lease_s = 999999999 # long
      | 	                ^^^^^^^^^

    2 problems in the configuration; nothing was started
    ");
}

#[test]
fn a_value_of_another_form_says_the_form() {
    insta::assert_snapshot!(
        refusal("config_version = 1\n[server]\nbind = \"localhost\"\npublic_url = \"pointsman.example.com\"\n[log]\nlevel = \"inof\"\nformat = \"jsn\"\n"),
        @r#"
    error: `server.bind` is "localhost", expected an address and a port such as "127.0.0.1:7420", or "[::1]:7420"
     --> config/pointsman.toml:3:8
      |
    3 | bind = "localhost"
      |        ^^^^^^^^^^^

    error: `server.public_url` is "pointsman.example.com", expected a URL such as "https://pointsman.example.com", without query or fragment
     --> config/pointsman.toml:4:14
      |
    4 | public_url = "pointsman.example.com"
      |              ^^^^^^^^^^^^^^^^^^^^^^^

    error: `log.level` is "inof", expected a level (off, error, warn, info, debug, trace), then overrides such as "info,pointsman=debug"
     --> config/pointsman.toml:6:9
      |
    6 | level = "inof"
      |         ^^^^^^

    error: `log.format` is "jsn", expected "auto" or "text" or "json"
     --> config/pointsman.toml:7:10
      |
    7 | format = "jsn"
      |          ^^^^^
      = help: did you mean "json"?

    4 problems in the configuration; nothing was started
    "#
    );
}

#[test]
fn a_missing_key_is_asked_for_where_it_belongs() {
    insta::assert_snapshot!(refusal("config_version = 1\n[[project]]\nslug = \"a\"\n[[project]]\ntarget = \"main\"\n[[check]]\nname = \"x\"\n"), @"
    error: `project` has no `slug`
     --> config/pointsman.toml:4:1
      |
    4 | [[project]]
      | ^^^^^^^^^^^
      = help: add `slug = …`: 1 to 40 of a-z, 0-9 and `-`, starting with a letter or digit

    error: `check` has no `command`
     --> config/pointsman.toml:6:1
      |
    6 | [[check]]
      | ^^^^^^^^^
      = help: add `command = …`: a shell command

    2 problems in the configuration; nothing was started
    ");
}

#[test]
fn a_plugin_that_is_not_there_or_not_fitting_is_named() {
    insta::assert_snapshot!(
        refusal(
            "config_version = 1\nrouting.plugins = [\"routing-rules\", \"routing-capabilty\"]\nworkflow.plugin = \"merge-text\"\npolicy.plugin = \"strict\"\n"
        ),
        @r#"
    error: `routing.plugins` names `routing-capabilty`, but there is no such plugin
     --> config/pointsman.toml:2:37
      |
    2 | routing.plugins = ["routing-rules", "routing-capabilty"]
      |                                     ^^^^^^^^^^^^^^^^^^^
      = help: did you mean `routing-capability`?

    error: `workflow.plugin` names `merge-text`, which is a merger; a workflow is needed here
     --> config/pointsman.toml:3:19
      |
    3 | workflow.plugin = "merge-text"
      |                   ^^^^^^^^^^^^
      = help: shipped: workflow-default

    error: `policy.plugin` names `strict`, but there is no such plugin
     --> config/pointsman.toml:4:17
      |
    4 | policy.plugin = "strict"
      |                 ^^^^^^^^
      = help: for a component of your own add `[plugins.strict]` with `source = "PATH.wasm"`

    3 problems in the configuration; nothing was started
    "#
    );
}

#[test]
fn a_plugin_that_nothing_uses_or_no_file_holds_is_named() {
    insta::assert_snapshot!(
        refusal("config_version = 1\n[plugins.merge-unoin]\ninstances = \"fresh\"\n\n[policy]\nplugin = \"mine\"\n[plugins.mine]\nsource = \"mine.wasm\"\n"),
        @r#"
    error: `plugins.merge-unoin` is set up, but nothing uses that plugin
     --> config/pointsman.toml:2:10
      |
    2 | [plugins.merge-unoin]
      |          ^^^^^^^^^^^
      = help: did you mean `[plugins.merge-union]`?

    error: `plugins.mine.source` is "mine.wasm", but there is no such file
     --> config/pointsman.toml:8:10
      |
    8 | source = "mine.wasm"
      |          ^^^^^^^^^^^
      = help: give the path of a component, as `pointsman plugin build DIR` writes it, or "embedded" for a shipped one

    2 problems in the configuration; nothing was started
    "#
    );
}

#[test]
fn what_lets_others_in_must_fit_together() {
    insta::assert_snapshot!(
        refusal(
            "config_version = 1\n[server]\nbind = \"0.0.0.0:7420\"\nanonymous = true\n[auth]\nissuer = \"http://as.example.org\"\nrequired_scopes = [\"a b\"]\n"
        ),
        @r#"
    error: `server.anonymous` lets everybody in, and `server.bind` is 0.0.0.0:7420, which others can reach
     --> config/pointsman.toml:4:13
      |
    4 | anonymous = true
      |             ^^^^
      = help: bind 127.0.0.1 or [::1], or give each client a token: `pointsman agent add NAME`

    error: `auth.issuer` is set, and `server.bind` is 0.0.0.0:7420: which URL the tokens must be meant for is not known
     --> config/pointsman.toml:6:10
      |
    6 | issuer = "http://as.example.org"
      |          ^^^^^^^^^^^^^^^^^^^^^^^
      = help: add `public_url = "https://…"` to [server]: where clients reach this host

    error: `auth.issuer` is http://as.example.org: keys that come over plain HTTP could be anybody's
     --> config/pointsman.toml:6:10
      |
    6 | issuer = "http://as.example.org"
      |          ^^^^^^^^^^^^^^^^^^^^^^^
      = help: write an https:// URL; http:// is for an authorization server on this machine

    error: `auth.required_scopes` is "a b", expected one OAuth scope, such as "pointsman:files", without spaces and quotes
     --> config/pointsman.toml:7:20
      |
    7 | required_scopes = ["a b"]
      |                    ^^^^^

    4 problems in the configuration; nothing was started
    "#
    );
    let named =
        "config_version = 1\n[server]\nbind = \"0.0.0.0:7420\"\npublic_url = \"https://p.example.org\"\n[auth]\nissuer = \"https://as\"\n";
    assert!(load(named, &[], &Flags::default()).is_ok());
    let public = "config_version = 1\n[server]\nanonymous = true\npublic_url = \"https://p.example.org\"\n";
    assert!(refusal(public).contains("`server.public_url` is https://p.example.org"), "{}", refusal(public));
    let flag = Flags { bind: Some("0.0.0.0:1".to_owned()), ..Flags::default() };
    assert!(load("config_version = 1\n[server]\nanonymous = true\n", &[], &flag).is_err(), "a flag counts as well");
    let no_issuer = "config_version = 1\n[auth]\naudience = \"x\"\n[[auth.grant]]\nscope = \"s\"\n";
    assert!(refusal(no_issuer).contains("`auth.audience` is set, but no authorization server is"), "{}", refusal(no_issuer));
    assert!(refusal("config_version = 1\n[server.tls]\ncert = \"c.pem\"\n").contains("`server.tls` has no `key`"));
}

#[test]
fn access_is_read() {
    let text = "config_version = 1\n[server]\npublic_url = \"https://p.example.org:8443/base/\"\n[server.tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\n\
                [limits]\nrequests_per_s = 0\n[auth]\nissuer = \"https://as\"\n[[auth.grant]]\nscope = \"s\"\ntoolsets = [\"files\"]\n";
    let variables = [("POINTSMAN_AUTH_REQUIRED_SCOPES", "a, b"), ("POINTSMAN_SERVER_TLS_KEY", "/k.pem")];
    let config = load(text, &variables, &Flags::default()).expect("whole");
    let tls = config.server.tls.clone().expect("a certificate");
    assert_eq!((tls.cert.as_path(), tls.key.as_path()), (Path::new("/srv/repo/config/c.pem"), Path::new("/k.pem")));
    assert_eq!(config.limits.calls, None);
    assert!(config.limits.failures.is_some());
    let auth = config.auth.clone().expect("an issuer");
    assert_eq!((auth.required_scopes.join(" "), auth.grants.len()), ("a b".to_owned(), 1));
    assert_eq!(
        (config.public_names(), config.origins()),
        (vec!["p.example.org".to_owned()], vec!["https://p.example.org:8443".to_owned()])
    );
    let anonymous = load("config_version = 1\n", &[("POINTSMAN_SERVER_ANONYMOUS", "true")], &Flags::default()).expect("whole");
    assert!(anonymous.server.anonymous && anonymous.auth.is_none());
}

#[test]
fn names_that_must_differ_do() {
    insta::assert_snapshot!(refusal("config_version = 1\n[[project]]\nslug = \"a\"\n[[project]]\nslug = \"a\"\n"), @r#"
    error: `project.slug` is "a" a second time
     --> config/pointsman.toml:5:8
      |
    5 | slug = "a"
      |        ^^^
      = help: give each [[project]] a slug of its own

    1 problem in the configuration; nothing was started
    "#);
}

#[test]
fn a_file_for_another_version_or_none_is_refused() {
    insta::assert_snapshot!(refusal("config_version = 2\n"), @"
    error: `config_version` is 2, expected 1
     --> config/pointsman.toml:1:18
      |
    1 | config_version = 2
      |                  ^

    1 problem in the configuration; nothing was started
    ");
    insta::assert_snapshot!(refusal("[server]\ndrain_ms = 1\n"), @"
    error: `config_version` is missing
     --> config/pointsman.toml
      = help: write `config_version = 1` as the first line

    1 problem in the configuration; nothing was started
    ");
}

#[test]
fn what_is_not_toml_is_shown() {
    insta::assert_snapshot!(refusal("config_version = 1\n[server\nbind = 1\n"), @"
    error: not TOML: unclosed table, expected `]`
     --> config/pointsman.toml:2:8
      |
    2 | [server
      |        ^

    1 problem in the configuration; nothing was started
    ");
    insta::assert_snapshot!(refusal("config_version = 1\n[server]\nbind = \"a\"\nbind = \"b\"\n"), @r#"
    error: not TOML: duplicate key
     --> config/pointsman.toml:4:1
      |
    4 | bind = "b"
      | ^^^^

    1 problem in the configuration; nothing was started
    "#);
}

#[test]
fn globs_and_lists_are_shown_by_their_item() {
    insta::assert_snapshot!(
        refusal("config_version = 1\n[[merging.strategy]]\nplugin = \"merge-text\"\npaths = [\n  \"src/**\",\n  \"\",\n  3,\n]\n"),
        @r#"
    error: `merging.strategy.paths` is "", expected a glob relative to the repository's root, such as "src/**" or "CHANGELOG.md"
     --> config/pointsman.toml:6:3
      |
    6 |   "",
      |   ^^

    error: `merging.strategy.paths` is 3, expected a glob relative to the repository's root, such as "src/**" or "CHANGELOG.md"
     --> config/pointsman.toml:7:3
      |
    7 |   3,
      |   ^

    2 problems in the configuration; nothing was started
    "#
    );
}

#[test]
fn wrong_variables_are_named() {
    insta::assert_snapshot!(
        refusal_of_variables(&[
            ("POINTSMAN_SERVER_BNID", "x"),
            ("POINTSMAN_GIT_WORKERS", "many"),
            ("POINTSMAN_COLOUR", "red"),
            ("POINTSMAN_LOG_LEVEL", "loud"),
        ]),
        @r#"
    error: no setting belongs to `POINTSMAN_COLOUR`
     --> environment variable POINTSMAN_COLOUR
      = help: variables are keys in capitals after `POINTSMAN_`, such as `POINTSMAN_SERVER_BIND` for `server.bind`

    error: `git.workers` is "many", expected a whole number from 1 to 64
     --> environment variable POINTSMAN_GIT_WORKERS

    error: `log.level` is "loud", expected a level (off, error, warn, info, debug, trace), then overrides such as "info,pointsman=debug"
     --> environment variable POINTSMAN_LOG_LEVEL

    error: no setting belongs to `POINTSMAN_SERVER_BNID`
     --> environment variable POINTSMAN_SERVER_BNID
      = help: did you mean `POINTSMAN_SERVER_BIND`?

    4 problems in the configuration; nothing was started
    "#
    );
}

#[test]
fn wrong_flags_are_named() {
    let flags = Flags { bind: Some("7420".to_owned()), log_level: Some("loud".to_owned()), ..Flags::default() };
    insta::assert_snapshot!(load("config_version = 1\n", &[], &flags).expect_err("wrong"), @r#"
    error: `server.bind` is "7420", expected an address and a port such as "127.0.0.1:7420", or "[::1]:7420"
     --> flag --bind

    error: `log.level` is "loud", expected a level (off, error, warn, info, debug, trace), then overrides such as "info,pointsman=debug"
     --> flag --log

    2 problems in the configuration; nothing was started
    "#);
}

#[test]
fn a_named_file_must_be_there_and_text() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("latin.toml"), b"config_version = 1 # \xe4\n").expect("written");
    let refused = |name: &str| {
        let flags = Flags { config: Some(name.into()), ..Flags::default() };
        Config::load(&Environment::of(&[("HOME", "/home/ana")], folder.path()), &flags).expect_err("wrong").to_string()
    };
    insta::assert_snapshot!(refused("nowhere.toml"), @"
    error: there is no such configuration file
     --> nowhere.toml
      = help: check --config, or run `pointsman init` in the repository to write one

    1 problem in the configuration; nothing was started
    ");
    insta::assert_snapshot!(refused("latin.toml"), @"
    error: the file is not UTF-8 from byte 21 on
     --> latin.toml
      = help: save it as UTF-8

    1 problem in the configuration; nothing was started
    ");
}

#[test]
fn without_a_home_a_data_folder_is_asked_for() {
    let error = Config::from_layers(None, &Environment::of(&[], Path::new("/")), &Flags::default()).expect_err("nowhere to go");
    insta::assert_snapshot!(error, @"
    error: there is no data folder
      = help: pass `--data DIR`, or set `POINTSMAN_DATA_DIR`, `XDG_DATA_HOME` or `HOME`

    1 problem in the configuration; nothing was started
    ");
}
