//! The repository adapter as stories, with the git CLI as the oracle.

mod checks;
mod claims;
mod commits;
mod create;
mod landing;
mod merges;
mod pushes;
mod recovery;
mod world;
