//! The start: what an earlier host left is cleared, what git and libgit2 need is written.
//!
//! The caller holds the data folder's lock, so nothing of ours runs but leftovers of a host that died. Those end first. The lock files
//! of a repository are stale once it is adopted: nobody else works on it then.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::runner::{MARK, Runner, end_marked};
use super::{GIT_VERSION_MIN, GitOptions, GitStartError};
use crate::ports::clock::System;

/// What half-made repositories are called until they are whole.
pub(super) const HALF: &str = ".half-";

/// The files that processes and libgit2 read.
pub(super) struct Files {
    pub(super) hooks: PathBuf,
    pub(super) global: PathBuf,
    pub(super) durable: PathBuf,
}

/// Names the volume in the folder of repositories.
const VOLUME: &str = "volume.id";
/// Random bytes of a volume's id.
const VOLUME_BYTES: usize = 16;

/// Returns the id of the volume that a folder is on, made when there is none yet: hosts that race for it agree.
pub(super) fn volume(root: &Path, system: &dyn System) -> io::Result<String> {
    let path = root.join(VOLUME);
    if !path.exists() {
        let mut bytes = [0; VOLUME_BYTES];
        system.random(&mut bytes);
        let mut file = tempfile::Builder::new().prefix(".volume-").tempfile_in(root)?;
        file.write_all(data_encoding::HEXLOWER.encode(&bytes).as_bytes())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Ok(_) => fs::File::open(root)?.sync_all()?,
            Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(lost) => return Err(lost.error),
        }
    }
    let id = fs::read_to_string(&path)?.trim().to_owned();
    let is_whole = id.len() == 2 * VOLUME_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
    if is_whole { Ok(id) } else { Err(damaged()) }
}

/// Ends leftover processes, then removes the host's half-made repositories, whose names begin with `half`, and everything in scratch.
pub(super) fn clear(root: &Path, scratch: &Path, half: &str) -> io::Result<()> {
    let ended = end_marked(MARK, scratch);
    if ended > 0 {
        tracing::warn!(ended, "processes of an earlier host were still running and have been ended");
    }
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(half) {
            remove_tree(&entry.path())?;
        }
    }
    for folder in ["projects", "checks"] {
        remove_tree(&scratch.join(folder))?;
    }
    Ok(())
}

/// Removes lock files and half-received objects of a repository that nobody uses.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() && is_lock(&path) {
            remove_stale(&path)?;
        }
    }
    sweep_locks(&dir.join("refs"))?;
    sweep_locks(&dir.join("logs"))?;
    let objects = dir.join("objects");
    for entry in fs::read_dir(&objects)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("tmp_objdir-") || name.starts_with("incoming-") {
            remove_tree(&entry.path())?;
        } else if entry.path().is_dir() && (name == "pack" || name == "info" || name.len() == 2) {
            for file in fs::read_dir(entry.path())? {
                let file = file?;
                let name = file.file_name();
                let name = name.to_string_lossy();
                if name.starts_with("tmp_") || name.starts_with(".tmp-") || name.ends_with(".lock") {
                    fs::remove_file(file.path())?;
                }
            }
        }
    }
    Ok(())
}

fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lock")
}

fn remove_stale(lock: &Path) -> io::Result<()> {
    tracing::warn!(lock = %lock.display(), "a lock of an earlier host has been removed");
    fs::remove_file(lock)
}

fn sweep_locks(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sweep_locks(&path)?;
        } else if is_lock(&path) {
            remove_stale(&path)?;
        }
    }
    Ok(())
}

/// Removes a folder and all below, read-only ones too. None there is fine.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder)?;
            fs::remove_dir_all(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    const OWNER_ALL: u32 = 0o700;
    fs::set_permissions(folder, fs::Permissions::from_mode(OWNER_ALL))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes the hooks and the two configuration files.
pub(super) fn prepare(scratch: &Path) -> io::Result<Files> {
    const EXECUTABLE: u32 = 0o755;
    const PRE_RECEIVE: &str = "#!/bin/sh\n\
        [ -n \"$POINTSMAN_BINARY\" ] || { echo 'pointsman: push through the host, not into its folder' >&2; exit 1; }\n\
        exec \"$POINTSMAN_BINARY\" git-hook pre-receive \"${GIT_DIR:-.}\" \"$POINTSMAN_GRANT\" \"$GIT_QUARANTINE_PATH\"\n";
    const REFERENCE_TRANSACTION: &str = "#!/bin/sh\n\
        [ \"$1\" = prepared ] && [ -n \"$POINTSMAN_BINARY\" ] || exit 0\n\
        exec \"$POINTSMAN_BINARY\" git-hook reference-transaction \"${GIT_DIR:-.}\" \"$POINTSMAN_GRANT\"\n";
    let files = Files { hooks: scratch.join("hooks"), global: scratch.join("gitconfig"), durable: scratch.join("libgit2config") };
    remove_tree(&files.hooks)?;
    fs::create_dir_all(&files.hooks)?;
    for (name, text) in [("pre-receive", PRE_RECEIVE), ("reference-transaction", REFERENCE_TRANSACTION)] {
        let path = files.hooks.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(EXECUTABLE))?;
    }
    // The folders are the operator's, whoever owns them: a mounted volume's owner is often another user.
    fs::write(&files.global, "[safe]\n\tdirectory = *\n")?;
    fs::write(&files.durable, "[core]\n\tfsyncObjectFiles = true\n\tlogAllRefUpdates = true\n")?;
    Ok(files)
}

/// Returns git's version when it is new enough.
pub(super) async fn version(runner: &Runner, options: &GitOptions) -> Result<String, GitStartError> {
    let mut command = runner.git(&options.scratch);
    command.arg("version");
    let ran = match runner.run("git version", command, &[], options.limits.step_ms).await {
        Ok(output) => output.ok("git version"),
        Err(error) => Err(error),
    };
    let text = ran.map_err(|source| GitStartError::NoGit { program: options.git.clone(), source })?;
    let text = String::from_utf8_lossy(&text);
    let found = text.trim().trim_start_matches("git version ").to_owned();
    let mut numbers = found.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if number < GIT_VERSION_MIN { Err(GitStartError::TooOld { found }) } else { Ok(found) }
}
