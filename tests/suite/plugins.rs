//! The shipped components, and the way from a guest crate to one, as a plugin author meets it.

use std::path::{Path, PathBuf};
use std::process::Output;

use pointsman_tests::pointsman;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn plugin(args: &[&str], folder: &Path) -> Output {
    pointsman(&["plugin"]).args(args).current_dir(folder).output().expect("the binary runs")
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_shipped_component_is_rebuilt_to_the_same_bytes() {
    let out = plugin(&["verify", "plugins/routing-capability"], &workspace());
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn a_folder_that_is_no_guest_crate_is_refused_with_what_it_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = plugin(&["build", "."], folder.path());
    assert!(!out.status.success() && said(&out).contains("plugin.toml is missing"), "{}", said(&out));

    std::fs::write(folder.path().join("plugin.toml"), "manifest_version = 1\nname = \"x\"\nworld = \"rooter\"\n").expect("a file");
    let out = plugin(&["build", "."], folder.path());
    assert!(!out.status.success() && said(&out).contains("plugin.toml"), "{}", said(&out));
    assert!(!folder.path().join("plugins").exists(), "nothing is written");
}
