use super::*;

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist")
}

fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(dist().join(format!("{name}.wasm"))).expect("shipped components are committed")
}

fn crate_dir(manifest: Option<&str>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    if let Some(text) = manifest {
        std::fs::write(dir.path().join(MANIFEST_FILE), text).expect("written");
    }
    dir
}

#[test]
fn a_crate_without_a_manifest_is_told_what_to_write() {
    let dir = crate_dir(None);
    let error = build(&Options::new(dir.path(), dir.path())).expect_err("nothing there");
    assert!(matches!(error, BuildError::NoManifest { .. }), "{error}");
    assert!(error.to_string().contains("manifest_version, name, version, world and description"), "{error}");
}

#[test]
fn a_wrong_manifest_is_refused_before_anything_is_compiled() {
    let dir = crate_dir(Some("manifest_version = 1\nname = \"x\"\nversion = \"0.1.0\"\nworld = \"rooter\"\ndescription = \"d\"\n"));
    let error = build(&Options::new(dir.path(), dir.path())).expect_err("no such world");
    assert!(error.to_string().contains("unknown variant `rooter`"), "{error}");
    assert!(error.to_string().contains("line 4"), "{error}");
}

#[test]
fn shipped_components_are_those_of_the_lock_and_of_their_worlds() {
    let lock = Lock::read(&dist()).expect("the lock fits");
    assert!(lock.entries().len() >= 10, "{}", lock.to_text());
    for entry in lock.entries() {
        let bytes = shipped(&entry.name);
        assert_eq!((digest(&bytes), bytes.len() as u64), (entry.digest.clone(), entry.size_bytes), "{}", entry.name);
        assert!(bytes.len() < 300 << 10, "{} has {} bytes", entry.name, bytes.len());
        let text = component::embedded_manifest(&bytes).expect("readable").expect("embedded");
        let manifest = Manifest::parse(&text).expect("fits");
        assert_eq!((manifest.name.as_str(), manifest.world.name()), (entry.name.as_str(), entry.world.as_str()));
        component::check(&bytes, manifest.world).expect("targets its world");
    }
}

#[test]
fn a_component_of_another_world_is_told_apart_by_name() {
    let error = component::check(&shipped("routing-capability"), World::Merger).expect_err("it is a router");
    let text = error.to_string();
    assert!(text.contains("does not export pointsman:merger/merging@0.1.0"), "{text}");
    assert!(text.contains("exports pointsman:router/routing@0.1.0, which belongs to another world"), "{text}");
    assert!(text.contains("pointsman:types/symbols@0.1.0, which this world does not give"), "{text}");
}

#[test]
fn a_tampered_component_is_found_before_a_rebuild() {
    let out = tempfile::tempdir().expect("a folder");
    let name = "policy-default";
    std::fs::copy(dist().join(lock::FILE), out.path().join(lock::FILE)).expect("copied");
    let mut bytes = shipped(name);
    bytes.push(0);
    std::fs::write(out.path().join(format!("{name}.wasm")), bytes).expect("written");
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name);
    let error = verify(&Options::new(crate_folder, out.path())).expect_err("not the locked bytes");
    assert!(matches!(error, BuildError::Differs { what: "the shipped file", .. }), "{error}");
}

#[test]
fn an_agent_that_offers_mcp_is_of_the_world_agent() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/components/conformance-fixtures.wasm");
    let bytes = std::fs::read(path).expect("the fixtures are committed");
    component::check(&bytes, World::Agent).expect("targets its world");
    let error = component::check(&bytes, World::McpProvider).expect_err("it is an agent, too");
    assert!(error.to_string().contains("exports pointsman:agent/handling@0.1.0, which belongs to another world"), "{error}");
}

#[test]
fn an_agent_may_offer_mcp_besides() {
    let bytes = include_bytes!("../adapters/wasm/tests/scripted-agent.wasm");
    let text = component::embedded_manifest(bytes).expect("readable").expect("embedded");
    assert_eq!(Manifest::parse(&text).expect("fits").world, World::Agent);
    component::check(bytes, World::Agent).expect("it exports both");
    component::check(bytes, World::McpProvider).expect_err("it is more than a provider");
}

#[test]
fn cases_go_along_from_their_folder_and_a_wrong_one_is_named() {
    let dir = crate_dir(None);
    let options = Options { progress: Progress::Silent, ..Options::new(dir.path(), dir.path()) };
    assert_eq!(carried(&options).expect("no folder"), None);
    let cases = dir.path().join(plugin_cases::FOLDER);
    std::fs::create_dir(&cases).expect("made");
    assert_eq!(carried(&options).expect("no case"), None);
    std::fs::write(cases.join("b.toml"), "call = \"route\"\n[expect]\ndecision = \"pass\"\n").expect("written");
    std::fs::write(cases.join("a.toml"), "call = \"route\"\n[expect]\ndecision = \"drop\"\n").expect("written");
    let json = carried(&options).expect("cases").expect("two of them");
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    assert_eq!(component::embedded_cases(&component), Ok(None));
    component::append_section(&mut component, golden::SECTION, json.as_bytes());
    let read = component::embedded_cases(&component).expect("readable").expect("it carries them");
    let names: Vec<String> = golden::parse(&read).expect("they fit").into_iter().map(|case| case.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(carried(&Options { carry: Carry::Nothing, ..options.clone() }).expect("left out"), None);
    std::fs::write(cases.join("c.toml"), "call = \"rout\"\n[expect]\na = 1\n").expect("written");
    let error = carried(&options).expect_err("there is no such call").to_string();
    assert!(error.contains("c.toml: there is no call `rout`"), "{error}");
}
