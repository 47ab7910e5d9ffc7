//! How a command ends when it does not end well.
//!
//! Invariant: the codes are stable; scripts rely on them.

use super::invocation::{Invocation, TextStyle};
use std::fmt::Display;

/// Exit codes, as `nightshift --help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CliExitCode {
    Ok = 0,
    Failure = 1,
    Usage = 2,
    Partial = 3,
    Auth = 4,
    NotFound = 5,
    Interrupted = 130,
}

/// Why a command stops, and its fix.
#[derive(Debug)]
pub(super) struct CliError {
    pub code: CliExitCode,
    /// Empty: everything was said already.
    pub message: String,
    pub hint: String,
}

impl CliError {
    /// A stop with this exit code, message and hint; an empty hint is not shown.
    pub fn new(code: CliExitCode, message: impl Display, hint: impl Display) -> CliError {
        CliError { code, message: message.to_string(), hint: hint.to_string() }
    }

    /// A stop because the command failed.
    pub fn failure(message: impl Display, hint: impl Display) -> CliError {
        CliError::new(CliExitCode::Failure, message, hint)
    }

    /// A stop because the command was used wrongly.
    pub fn usage(message: impl Display, hint: impl Display) -> CliError {
        CliError::new(CliExitCode::Usage, message, hint)
    }

    /// The output has said it all; only the code is left.
    pub fn said(code: CliExitCode) -> CliError {
        CliError::new(code, "", "")
    }

    /// Writes message and hint to stderr.
    pub fn print(&self, invocation: &Invocation) {
        if !self.message.is_empty() {
            // A diagnostic brings its own heading.
            let message = self.message.strip_prefix("error: ").unwrap_or(&self.message);
            invocation.say(&format!("{} {message}", invocation.on_stderr(TextStyle::Bad, "error:")));
        }
        if !self.hint.is_empty() {
            invocation.say(&format!("  {} {}", invocation.on_stderr(TextStyle::Good, "help:"), self.hint));
        }
    }
}
