//! The MCP conformance suite against the real binary, every revision, by the script that anybody can run.

use std::path::Path;
use std::process::Command;

use pointsman_tests::binary;

#[test]
fn the_suite_finds_nothing_in_any_revision() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/run.sh");
    let out = Command::new("bash").arg(script).env("HOST_BINARY", binary()).output().expect("bash runs");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}");
}
