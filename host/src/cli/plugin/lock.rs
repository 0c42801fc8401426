//! `plugin lock`: the digests of all plugins, as their sources have them now.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{SettingsArgs, Trouble, block_on, print_json, surface};
use crate::cli::write_atomically;
use crate::config::{ComponentOrigin, Config, Environment, PluginSpec};
use crate::plugin_build::digest_lock::{DigestLock, FILE, LockedPlugin};
use crate::ports::registry::NamedBy;
use crate::shipped;

#[derive(Debug, Args)]
pub(in crate::cli) struct LockArgs {
    /// Write nothing; exit 1 when the lock is not that of the sources
    #[arg(long)]
    check: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(environment: &Environment, args: &LockArgs) -> Result<ExitCode, Trouble> {
    let config = Config::load(environment, &args.settings.flags())?;
    let Some(file) = config.lock_file.clone() else {
        let advice = "Write one by `pointsman init`, or name it by `--config`.";
        return Err(Trouble::misused(format!("there is no configuration file for {FILE} to stand beside"), advice));
    };
    let mut entries = config.plugins.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    entries.extend(added(&config)?);
    let lock = DigestLock { entries };
    let text = lock.to_text();
    let same = std::fs::read_to_string(&file).is_ok_and(|there| DigestLock::parse(&there) == DigestLock::parse(&text));
    if !args.check && !same {
        write_atomically(&file, &text)?;
    }
    if args.json {
        let plugins: Vec<_> = lock.entries.iter().map(|one| serde_json::json!({"name": one.name, "digest": one.digest})).collect();
        print_json(&serde_json::json!({"file": file, "same": same, "plugins": plugins}))?;
    } else {
        let mut out = std::io::stdout().lock();
        match (same, args.check) {
            (true, _) => writeln!(out, "{} is that of the sources", file.display())?,
            (false, true) => writeln!(out, "{} is not that of the sources", file.display())?,
            (false, false) => writeln!(out, "{}: {} plugins; no other component of them is loaded", file.display(), lock.entries.len())?,
        }
    }
    Ok(if args.check && !same { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn entry(spec: &PluginSpec) -> Result<LockedPlugin, Trouble> {
    let name = &spec.name;
    let hashed = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let digest = match &spec.origin {
        ComponentOrigin::Embedded => shipped::component(name)
            .map(hashed)
            .ok_or_else(|| Trouble::misused(format!("no component `{name}` is shipped"), "Name a file or URL as its `source`."))?,
        ComponentOrigin::File(path) => hashed(&read(path)?),
        ComponentOrigin::Url(url) => spec
            .digest
            .clone()
            .ok_or_else(|| Trouble::misused(format!("`{name}` comes from {url} without a `digest`"), "Add it to the plugin's table."))?,
    };
    Ok(LockedPlugin { name: name.clone(), digest, source: spec.origin.to_string() })
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|error| Trouble::failed(format!("{}: {error}", path.display())))
}

/// Returns what was added by the API, as it was loaded last.
fn added(config: &Config) -> Result<Vec<LockedPlugin>, Trouble> {
    let plugins = block_on(async { Ok::<_, Trouble>(surface(config).await?.0.plugin_list().await?) })??;
    let entry = |plugin: crate::ports::registry::PluginListed| {
        let digest = plugin.digest.or_else(|| plugin.history.last().map(|version| version.digest.clone()))?;
        Some(LockedPlugin { name: plugin.name, digest, source: plugin.source })
    };
    Ok(plugins.into_iter().filter(|plugin| plugin.named_by == NamedBy::Api).filter_map(entry).collect())
}
