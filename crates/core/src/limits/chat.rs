//! Talking with users in a chat: connections, forms, pages: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use std::time::Duration;

// ── WebSockets ──
/// Slack's largest envelope is a form with its state, some 100 KiB.
pub const SOCKET_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of a WebSocket's read buffer.
pub const SOCKET_BUFFER_BYTES: usize = 16 * 1024;
/// A write that takes longer has failed.
pub const SOCKET_WRITE: Duration = Duration::from_secs(5);

// ── Slack's Socket Mode, and its bounds that HTTP shares ──
/// A press comes with the whole message that the button is in, percent-encoded.
pub const SLACK_BODY_BYTES: usize = 256 * 1024;
/// Slack sends `hello` at once; a connection without it is none.
pub const SLACK_HELLO: Duration = Duration::from_secs(15);
/// After this silence a ping is sent, and after the same again the connection counts as lost.
pub const SLACK_QUIET: Duration = Duration::from_secs(20);
/// Between two attempts to connect: Slack's own clients begin with a second.
pub const SLACK_AGAIN_FIRST: Duration = Duration::from_secs(1);
/// After an outage users should reach us again within half a minute.
pub const SLACK_AGAIN_MAX: Duration = Duration::from_secs(30);
/// Where only a user can fix it (a token, a switch in the app's settings), we try again this often.
pub const SLACK_AGAIN_MENDED: Duration = Duration::from_secs(300);
/// An old connection lives so long beside its successor; Slack closes it after about ten seconds.
pub const SLACK_OVERLAP: Duration = Duration::from_secs(30);
/// Envelopes remembered, so that one that Slack delivers twice counts once.
pub const SLACK_ENVELOPES: usize = 8_192;
/// Commands and buttons processed at once; further ones are answered with a request to try again.
pub const SLACK_AT_ONCE: usize = 64;

// ── buttons, forms and pages ──
/// A button that was shown longer ago does nothing any more.
pub const SLACK_BUTTON_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of a button's value: an id, a hash and a time, sealed. Slack takes 2,000.
pub const SLACK_SEAL_BYTES: usize = 512;
/// Forms that are open; the oldest is dropped, and its submission is answered with that.
pub const SLACK_FORMS: usize = 1_024;
/// Slack lets us answer a press for so long.
pub const SLACK_FORM_LIFE: Duration = Duration::from_secs(30 * 60);
/// Between two publications of one user's page.
pub const SLACK_HOME_EVERY: Duration = Duration::from_secs(2);
/// Users whose last publication is remembered.
pub const SLACK_HOMES: usize = 4_096;
/// Incidents and questions shown on a page; the rest is a number.
pub const SLACK_HOME_ROWS: usize = 10;

// ── Slack's own limits of views ──
/// Blocks in one view.
pub const SLACK_VIEW_BLOCKS: usize = 100;
/// Characters of a view's title.
pub const SLACK_TITLE_CHARS: usize = 24;
/// Characters of a field's label.
pub const SLACK_LABEL_CHARS: usize = 200;
/// Characters of a field's hint.
pub const SLACK_HINT_CHARS: usize = 300;
/// Options of one select menu.
pub const SLACK_OPTIONS: usize = 100;
/// Characters of one option's text.
pub const SLACK_OPTION_CHARS: usize = 75;
/// Characters of a block's or an action's id.
pub const SLACK_ID_CHARS: usize = 255;
/// Characters of one field: a reason is at most `WHY_BYTES`, and a character may have four bytes.
pub const SLACK_FIELD_CHARS: usize = 500;
/// Fields of one form; a runbook with more parameters is started from the command line.
pub const SLACK_FIELDS: usize = 20;
