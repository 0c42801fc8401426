//! A data folder whose plugins are compiled already: made once by the real binary, copied for each host under test, so that
//! forty hosts do not compile ten plugins each. It holds keys and the code cache; no store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binary, pointsman};

/// What a template holds.
const KEPT: [&str; 3] = ["root.key", "receipt.key", "code-cache"];

/// Copies keys and code cache into a data folder, made if it is not there.
///
/// # Panics
/// When the template cannot be made.
pub(crate) fn copy_to(data: &Path) {
    let template = made();
    fs::create_dir_all(data).expect("a data folder");
    for name in KEPT {
        let copied = Command::new("cp").arg("-a").arg(template.join(name)).arg(data).status().expect("cp runs");
        assert!(copied.success(), "{name} is copied");
    }
}

/// Returns the template of this binary, making it under a lock that other test processes wait for.
fn made() -> PathBuf {
    let binary = binary();
    let about = fs::metadata(&binary).expect("the binary is there");
    let stamp = about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos());
    let root = binary.parent().expect("a folder").join("test-data");
    fs::create_dir_all(&root).expect("a folder for templates");
    let lock = File::create(root.join("lock")).expect("a lock file");
    lock.lock().expect("a lock");
    let template = root.join(format!("{}-{stamp}", about.len()));
    if !template.join("made").exists() {
        let config = root.join("template.toml");
        fs::write(&config, "config_version = 1\n").expect("a configuration");
        let out = pointsman(&["agent", "list", "--json", "--config"]).arg(&config).arg("--data").arg(&template).output();
        let out = out.expect("the binary runs");
        assert!(out.status.success(), "the template is made: {}", String::from_utf8_lossy(&out.stderr));
        fs::write(template.join("made"), "").expect("a mark");
    }
    template
}
