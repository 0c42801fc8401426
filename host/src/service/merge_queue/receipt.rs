//! Receipts: what became of every change of a landed merge, signed.
//!
//! A receipt is a git note of the landed commit (`refs/notes/pointsman`) and an event. The signature covers the payload's
//! exact bytes, so that it can be verified without this host: ed25519 (RFC 8032) by the key in the envelope.

use data_encoding::{BASE64, HEXLOWER};
use pointsman_core::accounting::FileAccount;
use pointsman_core::ids::{MergeId, Oid, ProjectId, TaskId};
use pointsman_core::merge::PassedCheck;
use pointsman_core::time::TimeMs;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ports::keys::Keys;
use crate::ports::plugins::PluginRef;

/// The account of one file that both sides touched, or that a strategy made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReceipt {
    /// Which.
    pub path: String,
    /// Where a rename took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<String>,
    /// `plugin NAME` or `agent NAME`; none: git.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// That plugin's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_digest: Option<String>,
    /// What became of each side's changes.
    pub account: FileAccount,
}

/// What was done, and on what grounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this form.
    pub v: u16,
    /// Whose repository.
    pub project: ProjectId,
    /// Which merge.
    pub merge: MergeId,
    /// Which task.
    pub task: TaskId,
    /// Who did the work.
    pub agent: String,
    /// Where it landed.
    pub target: String,
    /// The merge base.
    pub base: Option<Oid>,
    /// The target before.
    pub ours: Oid,
    /// The branch's head.
    pub theirs: Oid,
    /// The commit that landed.
    pub commit: Oid,
    /// Its tree: the one that was checked.
    pub tree: Oid,
    /// Paths that only the target had touched.
    pub only_ours: u32,
    /// Paths that only the branch had touched.
    pub only_theirs: u32,
    /// All others.
    pub files: Vec<FileReceipt>,
    /// Conflicts that were resolved on the branch before: path, by whom, what was left out.
    pub resolutions: Vec<pointsman_core::task::Resolution>,
    /// Checks that the tree passed.
    pub checks: Vec<PassedCheck>,
    /// Who approved the head.
    pub approvals: Vec<String>,
    /// Every plugin that had a say.
    pub plugins: Vec<PluginRef>,
    /// When.
    pub at: TimeMs,
}

/// A signed receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// The receipt as JSON; the signature is over these bytes.
    pub payload: String,
    /// ed25519 public key, hex.
    pub key: String,
    /// Signature, base64.
    pub signature: String,
}

/// Why a receipt does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not a receipt.
    #[error("this is not a receipt: {0}")]
    Malformed(String),
    /// The signature does not fit.
    #[error("the signature does not fit the receipt: it was changed after it was signed, or signed by another key")]
    BadSignature,
}

impl SignedReceipt {
    /// Returns the receipt signed.
    #[must_use]
    pub fn sign(receipt: &Receipt, keys: &dyn Keys) -> Self {
        let payload = serde_json::to_string(receipt).unwrap_or_default();
        let signature = BASE64.encode(&keys.sign(payload.as_bytes()));
        Self { payload, key: HEXLOWER.encode(&keys.public_key()), signature }
    }

    /// Returns the receipt in a note, its signature checked.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(note: &str) -> Result<Receipt, ReceiptError> {
        let malformed = |error: &dyn std::fmt::Display| ReceiptError::Malformed(error.to_string());
        let signed: Self = serde_json::from_str(note).map_err(|error| malformed(&error))?;
        let key = HEXLOWER.decode(signed.key.as_bytes()).map_err(|error| malformed(&error))?;
        let signature = BASE64.decode(signed.signature.as_bytes()).map_err(|error| malformed(&error))?;
        UnparsedPublicKey::new(&ED25519, key).verify(signed.payload.as_bytes(), &signature).map_err(|_| ReceiptError::BadSignature)?;
        serde_json::from_str(&signed.payload).map_err(|error| malformed(&error))
    }
}
