//! `pointsman demo`: a real host, a real repository, four agents that are real MCP clients, and a check of every claim
//! from the outside.
//!
//! The host runs as a process of its own and is killed twice on the way. The repository is a copy; the original is only
//! read, and that too is checked.

use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

mod actor;
mod scenery;
mod stage;
mod story;
mod timeline;
mod verify;

use stage::Stage;
use timeline::Timeline;

/// How the demo runs.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// The repository to copy; none: the one the demo stands in, else a generated one.
    pub repo: Option<PathBuf>,
    /// Leave the host running and say how to connect.
    pub keep: bool,
    /// Print the timeline as JSON lines.
    pub json: bool,
}

/// Why the demo could not go on.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Files or processes.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Git said no.
    #[error("git {args} failed: {said}")]
    Git {
        /// What was asked.
        args: String,
        /// Its words.
        said: String,
    },
    /// The host did not start, or not in time.
    #[error("the host did not start: {0}")]
    Host(String),
    /// An agent got an answer it did not expect.
    #[error("{who}: {what}")]
    Unexpected {
        /// Which agent.
        who: String,
        /// What was wrong.
        what: String,
    },
}

impl DemoError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Runs the demo; success only if every claim holds.
pub async fn run(options: DemoOptions) -> ExitCode {
    let timeline = Timeline::new(options.json);
    match play(&options, &timeline).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            timeline.fail(&crate::service::kit::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn play(options: &DemoOptions, timeline: &Timeline) -> Result<bool, DemoError> {
    timeline.progress("preparing a copy of the repository");
    let scene = scenery::Scene::choose(options.repo.as_deref(), timeline)?;
    let mut stage = Stage::set(&scene, timeline).await?;
    let told = story::play(&mut stage, &scene, timeline).await;
    let claims = match told {
        Ok(told) => verify::verify(&mut stage, &scene, &told, timeline).await?,
        Err(error) => {
            timeline.fail(&crate::service::kit::chain(&error));
            timeline.say("demo", &format!("the host's log: {}", stage.log_path().display()));
            stage.keep_files();
            return Ok(false);
        }
    };
    let held = timeline.summary(&claims);
    if options.keep {
        stage.leave_running(timeline);
    } else {
        if !held {
            stage.keep_files();
        }
        stage.stop(timeline).await?;
    }
    Ok(held)
}
