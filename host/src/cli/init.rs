//! `pointsman init`: from a git checkout to a project that agents can connect to. Run again, it changes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use pointsman_core::event::Provenance;

use super::{SettingsArgs, Trouble, admin, block_on, checkout_around, print_json, write_atomically};
use crate::config::{self, Config, Environment, FILE_IN_REPOSITORY, Flags, ProjectConfig, TOKEN_VARIABLE};
use crate::ports::admin::{AdminSurface, AgentAdd, AgentAdded, ProjectCreate, ProjectCreated};

/// Characters of a slug.
const SLUG_CHARS_MAX: usize = 40;

const EXAMPLES: &str = "\
Examples:
  pointsman init
  pointsman init --slug web --data /srv/pointsman

Writes config/pointsman.toml unless it is there, copies the repository into the data folder (it is only read),
and prints a first token once. Run again, it changes nothing.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InitArgs {
    /// Short name of the project in URLs [default: from the folder's name]
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,
    /// Whom the first token names [default: the user]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What was done.
struct Outcome {
    file: PathBuf,
    is_file_new: bool,
    project: ProjectCreated,
    /// None: the project has a token already.
    token: Option<AgentAdded>,
}

pub(super) fn run(environment: &Environment, args: &InitArgs) -> Result<ExitCode, Trouble> {
    let folder = environment.folder();
    let root = checkout_around(folder).ok_or_else(|| {
        Trouble::misused(
            format!("{} is not in a git repository", folder.display()),
            "change into the checkout that agents shall work on, or make one: `git init && git commit --allow-empty -m first`",
        )
    })?;
    let slug = match &args.slug {
        Some(slug) if is_slug(slug) => slug.clone(),
        Some(slug) => return Err(Trouble::misused(format!("`{slug}` is not a slug"), "use 1 to 40 of a-z, 0-9 and `-`")),
        None => slug_of(root),
    };
    let file = args.settings.config.as_ref().map_or_else(|| root.join(FILE_IN_REPOSITORY), |file| folder.join(file));
    let is_file_new = !file.exists();
    if is_file_new {
        write_atomically(&file, &config::file_for_project(&slug, &path_back(&file, root), &head_branch(root)))?;
    }
    let flags = Flags { config: Some(file.clone()), ..args.settings.flags() };
    let config = Config::load(environment, &flags)?;
    let wanted = project_of(&config, args.slug.as_deref(), root, &slug);
    let name = args.name.clone().or_else(|| environment.get("USER").map(str::to_owned)).unwrap_or_else(|| "me".to_owned());
    let (project, token) = block_on(async {
        let admin = admin(&config).await?;
        set_up(admin.as_ref(), wanted, name).await
    })??;
    report(&Outcome { file, is_file_new, project, token }, &config, args.json)
}

async fn set_up(admin: &dyn AdminSurface, wanted: ProjectConfig, name: String) -> Result<(ProjectCreated, Option<AgentAdded>), Trouble> {
    let create = ProjectCreate { slug: wanted.slug, source: wanted.source, target: wanted.target };
    let project = admin.project_create(create).await?;
    let has_token = admin.agent_list().await?.iter().any(|agent| agent.live && agent.projects.contains(&project.slug));
    if has_token {
        return Ok((project, None));
    }
    let add = AgentAdd {
        name,
        provenance: Provenance::Agent,
        capabilities: Vec::new(),
        toolsets: Vec::new(),
        projects: vec![project.slug.clone()],
        lifetime_ms: None,
    };
    let token = admin.agent_add(add).await?;
    Ok((project, Some(token)))
}

/// Returns the project that is meant: the one of the slug asked for, else the configured one of this checkout, else the
/// first configured one, else a new one.
fn project_of(config: &Config, asked: Option<&str>, root: &Path, slug: &str) -> ProjectConfig {
    let of_slug = config.projects.iter().find(|project| asked == Some(project.slug.as_str()));
    let of_checkout = || config.projects.iter().find(|project| project.source.as_deref() == Some(root));
    let configured = of_slug.or_else(|| if asked.is_none() { of_checkout().or_else(|| config.projects.first()) } else { None });
    configured.cloned().unwrap_or_else(|| ProjectConfig { slug: slug.to_owned(), source: Some(root.to_owned()), target: head_branch(root) })
}

fn report(outcome: &Outcome, config: &Config, json: bool) -> Result<ExitCode, Trouble> {
    let url = format!("{}/mcp/{}", config.public_url(config.server.bind), outcome.project.slug);
    if json {
        print_json(&serde_json::json!({
            "config": outcome.file,
            "config_is_new": outcome.is_file_new,
            "data_dir": config.data_dir,
            "project": outcome.project,
            "token": outcome.token,
            "url": url,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    let state = |is_new: bool| if is_new { "new " } else { "kept" };
    writeln!(out, "{} config   {}", state(outcome.is_file_new), outcome.file.display())?;
    let (slug, target) = (&outcome.project.slug, &outcome.project.target);
    writeln!(out, "{} project  {slug}, work lands on {target}", state(outcome.project.is_new))?;
    writeln!(out, "     data     {}", config.data_dir.display())?;
    match &outcome.token {
        Some(token) => {
            writeln!(out, "new  token    for {}, shown this once", token.name)?;
            writeln!(out, "\nNext:\n  export {TOKEN_VARIABLE}={}", token.secret)?;
        }
        None => {
            writeln!(out, "kept token    `pointsman agent list` shows them")?;
            writeln!(out, "\nNext:\n  pointsman agent add NAME               a token for one more agent")?;
        }
    }
    writeln!(out, "  pointsman up                            serve it at {url}")?;
    writeln!(out, "  pointsman connect claude-code --write   or codex, or cursor")?;
    Ok(ExitCode::SUCCESS)
}

fn is_slug(text: &str) -> bool {
    !text.is_empty() && text.len() <= SLUG_CHARS_MAX && slug_from(text) == text
}

fn slug_of(root: &Path) -> String {
    let slug = slug_from(&root.file_name().unwrap_or_default().to_string_lossy());
    if slug.is_empty() { "project".to_owned() } else { slug }
}

/// Returns a name as a slug: lower case, everything else one `-`, none at the ends.
fn slug_from(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(SLUG_CHARS_MAX);
    slug.trim_end_matches('-').to_owned()
}

/// Returns the checkout's root as seen from the configuration's folder; absolute where the file is elsewhere.
fn path_back(file: &Path, root: &Path) -> String {
    let within = file.parent().and_then(|folder| folder.strip_prefix(root).ok());
    match within {
        Some(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Some(below) => vec![".."; below.components().count()].join("/"),
        None => root.display().to_string(),
    }
}

/// Returns the branch that is checked out, `main` when none is.
fn head_branch(root: &Path) -> String {
    let dot_git = root.join(".git");
    // In a worktree or submodule `.git` is a file that names the folder.
    let folder = match std::fs::read_to_string(&dot_git) {
        Ok(text) => text.strip_prefix("gitdir:").map_or_else(|| dot_git.clone(), |path| root.join(path.trim())),
        Err(_) => dot_git,
    };
    let head = std::fs::read_to_string(folder.join("HEAD")).unwrap_or_default();
    head.trim().strip_prefix("ref: refs/heads/").filter(|branch| !branch.is_empty()).unwrap_or("main").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_folder_name_has_a_slug() {
        for (name, slug) in [("My Repo_2", "my-repo-2"), ("--x--", "x"), ("日本", ""), ("a".repeat(50).as_str(), "a".repeat(40).as_str())]
        {
            assert_eq!(slug_from(name), slug, "{name}");
        }
        assert_eq!(slug_of(Path::new("/")), "project");
        assert!(is_slug("a-1") && !is_slug("A") && !is_slug("-a") && !is_slug("a--b") && !is_slug(""));
    }

    #[test]
    fn the_source_is_found_from_the_file() {
        for (file, expected) in [("/r/config/pointsman.toml", ".."), ("/r/p.toml", "."), ("/r/a/b/p.toml", "../.."), ("/etc/p.toml", "/r")]
        {
            assert_eq!(path_back(Path::new(file), Path::new("/r")), expected);
        }
    }

    #[test]
    fn the_branch_is_that_of_the_checkout_or_worktree() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir_all(root.join("elsewhere")).expect("made");
        std::fs::write(root.join("elsewhere/HEAD"), "ref: refs/heads/release/1\n").expect("written");
        std::fs::write(root.join(".git"), "gitdir: elsewhere\n").expect("written");
        assert_eq!(head_branch(root), "release/1");
        std::fs::write(root.join("elsewhere/HEAD"), "0123456789abcdef\n").expect("written");
        assert_eq!(head_branch(root), "main");
    }

    #[test]
    fn a_new_configuration_is_one_the_host_takes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE_IN_REPOSITORY);
        write_atomically(&file, &config::file_for_project("web", "..", "trunk")).expect("written");
        let environment = Environment::of(&[("HOME", "/home/ana")], folder.path());
        let config = Config::load(&environment, &Flags::default()).expect("it is whole");
        let source = Some(folder.path().to_owned());
        assert_eq!(config.projects, [ProjectConfig { slug: "web".to_owned(), source, target: "trunk".to_owned() }]);
        let shipped = Config::shipped(&config.data_dir).expect("whole");
        assert_eq!(
            config,
            Config { file: config.file.clone(), lock_file: config.lock_file.clone(), projects: config.projects.clone(), ..shipped }
        );
        let wanted = project_of(&config, None, folder.path(), "other");
        assert_eq!(wanted.slug, "web", "the configured project of this checkout is meant");
        assert_eq!(project_of(&config, Some("new"), folder.path(), "new").slug, "new");
    }
}
