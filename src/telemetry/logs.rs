//! Structured logs on stderr. The content of a label cannot forge a line or move a cursor.
//!
//! Invariant: one event is one line, and no control or direction-changing character leaves this module unescaped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging to stderr. `level` as in `RUST_LOG`, which wins where it is set. Call once.
///
/// # Errors
///
/// Fails when `level` (or `RUST_LOG`) is no filter, or logging was started before.
pub fn init(level: &str, json: bool) -> Result<(), String> {
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|e| format!("`{directives}` is no log level: {e}; write for instance `info` or `nightshift=debug`"))?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(EscapedOutput(io::stderr));
    let done = if json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    done.map_err(|e| format!("logging was started before: {e}"))
}

/// The text with control characters and those that change the writing direction escaped; for logs and terminals.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            // The form that JSON reads too, so that a JSON line stays one.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Makes writers that escape. The formatter hands over one event in one write, with one newline at its end.
struct EscapedOutput<M>(M);

struct EscapedWriter<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for EscapedOutput<M> {
    type Writer = EscapedWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapedWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for EscapedWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(printable(body).as_bytes())?;
        if body.len() != text.len() {
            self.0.write_all(b"\n")?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_hostile_label_cannot_forge_a_log_line() {
        for json in [true, false] {
            let page = Page::default();
            let out = page.clone();
            let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(EscapedOutput(move || out.clone()));
            let hostile = "x\n{\"level\":\"INFO\"}\r\u{1b}[2J\u{202e}\u{9b}0m\0";
            let say = || tracing::info!(label = %hostile, "message {hostile}");
            if json {
                tracing::subscriber::with_default(lines.json().finish(), say);
            } else {
                tracing::subscriber::with_default(lines.finish(), say);
            }
            let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.trim_end_matches('\n').chars().any(is_hostile), "{text:?}");
            if json {
                assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
            }
        }
    }
}
