//! Every limit that is not a configuration key, by name.

/// Bytes of a message body.
pub const MESSAGE_BODY_BYTES_MAX: usize = 256 << 10;
/// Characters of a title or subject.
pub const TITLE_CHARS_MAX: usize = 200;
/// Bytes of a description, note or review text.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Recipients of one message.
pub const RECIPIENTS_MAX: usize = 64;
/// Characters of a message's kind.
pub const KIND_CHARS_MAX: usize = 40;
/// Tags of one message.
pub const TAGS_MAX: usize = 32;
/// Characters of a tag, team or topic.
pub const TAG_CHARS_MAX: usize = 64;
/// Repository paths one message may speak of.
pub const MESSAGE_PATHS_MAX: usize = 64;
/// Attachments one message may name.
pub const ATTACHMENTS_MAX: usize = 16;
/// Characters of an attachment's media type.
pub const MEDIA_TYPE_CHARS_MAX: usize = 100;
/// Headers of one message.
pub const HEADERS_MAX: usize = 32;
/// Bytes of the headers of one message, names and values together.
pub const HEADERS_BYTES_MAX: usize = 4 << 10;
/// Characters of a correlation id.
pub const CORRELATION_CHARS_MAX: usize = 200;
/// Messages one call may send.
pub const MESSAGES_PER_SEND_MAX: usize = 20;
/// Bytes of a message's stored form above which it is compressed.
pub const PLAIN_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Bytes of a message's stored form above which it is never compressed, so that none that is expands to more.
pub const COMPRESSED_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a resource's URI.
pub const URI_BYTES_MAX: usize = 2_048;
/// Bytes of one repository path.
pub const PATH_BYTES_MAX: usize = 512;
/// Seconds a message may wait before it expires, at the most.
pub const MESSAGE_EXPIRY_S_MAX: u64 = 30 * 24 * 60 * 60;
/// Candidates offered to a router at once.
pub const CANDIDATES_MAX: usize = 1_000;
/// Deliveries one `wait_for_events` returns.
pub const EVENTS_PER_WAIT_MAX: usize = 20;
/// Deliveries one agent may have waiting or leased; senders are told when it is full.
pub const INBOX_DELIVERIES_MAX: usize = 10_000;
/// Times a delivery is tried before it becomes a dead letter.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 8;
/// Milliseconds an agent has to ack what it was handed before it comes back.
pub const DELIVERY_LEASE_MS: u64 = 10 * 60 * 1_000;
/// Seconds one `wait_for_events` waits by default.
pub const WAIT_DEFAULT_S: u64 = 45;
/// Seconds one `wait_for_events` waits at the most: clients cut at 60.
pub const WAIT_MAX_S: u64 = 50;
/// Milliseconds after its last call for which an agent counts as being there.
pub const PRESENT_MS: u64 = 10 * 60 * 1_000;
/// Milliseconds for which a noted call stands in for those after it: calls are noted no more often.
pub const PRESENCE_NOTED_MS: u64 = 150 * 1_000;
/// Milliseconds after which a sender may hope for room in an inbox that is full.
pub const INBOX_FULL_RETRY_MS: u64 = 60 * 1_000;
/// Milliseconds before a delivery that was given back is tried again, doubled with each further try.
pub const BACK_OFF_MS: u64 = 5_000;
/// Milliseconds between two tries of a delivery at the most.
pub const BACK_OFF_MS_MAX: u64 = 5 * 60 * 1_000;
/// Milliseconds by which whoever gives a delivery back may put it off, at the most.
pub const NACK_DELAY_MS_MAX: u64 = 60 * 60 * 1_000;
/// Milliseconds after which a message that nobody could take is routed again.
pub const DEFERRED_RETRY_MS: u64 = 30 * 1_000;
/// Acks and nacks in one `wait_for_events`.
pub const SETTLED_PER_WAIT_MAX: usize = 100;
/// Context key globs one `wait_for_events` may watch.
pub const WATCHED_GLOBS_MAX: usize = 32;
/// Milliseconds a claim lives without a sign of life.
pub const CLAIM_LEASE_MS: u64 = 30 * 60 * 1_000;
/// Path globs one claim may lease.
pub const LEASE_GLOBS_MAX: usize = 64;
/// Tasks one task may depend on.
pub const DEPENDENCIES_MAX: usize = 64;
/// Bytes of one context document.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;
/// Bytes of a document of JSON, which is read into values.
pub const JSON_BYTES_MAX: usize = 8 << 20;
/// Bytes of a document up to which two edits of it are merged.
pub const RECONCILED_BYTES_MAX: usize = 4 << 20;
/// Bytes of a document that are stored within its version; more are cut into chunks.
pub const INLINE_BYTES_MAX: usize = 32 << 10;
/// Bytes of a chunk.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Documents one call may write together.
pub const DOCUMENTS_PER_WRITE_MAX: usize = 20;
/// Bytes of a patch up to which an event tells it.
pub const TOLD_PATCH_BYTES_MAX: usize = 2 << 10;
/// Characters of the label of a version.
pub const LABEL_CHARS_MAX: usize = 80;
/// Bytes of a context key.
pub const DOCUMENT_KEY_BYTES_MAX: usize = 200;
/// Bytes of one file in `commit_files`.
pub const COMMIT_FILE_BYTES_MAX: usize = 4 << 20;
/// Files in one `commit_files`.
pub const COMMIT_FILES_MAX: usize = 500;
/// Milliseconds an idempotency record is kept.
pub const IDEMPOTENCY_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;
/// Topics or teams one agent may name.
pub const TOPICS_MAX: usize = 64;
/// Capabilities one agent may name.
pub const CAPABILITIES_MAX: usize = 64;
/// Characters of an agent's name.
pub const AGENT_NAME_CHARS_MAX: usize = 64;
