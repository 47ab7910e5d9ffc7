//! Finding, reading and refusing the configuration file, with the wrong line and a suggestion.
//!
//! Invariant: a message shows at most one line of the file, and never the value of a key that may hold a secret.

use super::{Config, ConfigProblem, secret};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Places that are looked at, in order, when neither `--config` nor `NIGHTSHIFT_CONFIG` names one.
const PLACES: [&str; 2] = ["nightshift.yaml", "/etc/nightshift/nightshift.yaml"];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration {path}: {source}; name another file with --config")]
    Read { path: PathBuf, source: std::io::Error },
    /// Not YAML, an unknown key, a wrong type: rendered with the line.
    #[error("{0}")]
    Parse(String),
    /// It reads, but cannot be meant so: everything that is wrong, at once.
    #[error("configuration {path}: {} to fix\n{}", count(.problems.len()), list(.problems))]
    Problems { path: PathBuf, problems: Vec<ConfigProblem> },
}

/// Which file it is, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOrigin {
    /// By `--config` or `NIGHTSHIFT_CONFIG`, whose name this is.
    Named(PathBuf, &'static str),
    /// In one of the usual places.
    Usual(PathBuf),
    /// None: the defaults hold.
    Defaults,
}

impl ConfigOrigin {
    /// The file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ConfigOrigin::Named(path, _) | ConfigOrigin::Usual(path) => Some(path),
            ConfigOrigin::Defaults => None,
        }
    }
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigOrigin::Named(path, by) => write!(f, "configuration {} (by {by})", path.display()),
            ConfigOrigin::Usual(path) => write!(f, "configuration {}", path.display()),
            ConfigOrigin::Defaults => {
                write!(f, "no configuration file (looked for {}); using defaults", PLACES.join(", "))
            }
        }
    }
}

impl Config {
    /// Reads, parses and checks one file.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, is larger than `CONFIG_BYTES`, does not parse, or breaks a rule of
    /// [`Config::check`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(read)?.len();
        if size > crate::limits::CONFIG_BYTES {
            let bound = crate::limits::CONFIG_BYTES;
            return Err(read(std::io::Error::other(format!(
                "{size} bytes is more than a configuration has ({bound})"
            ))));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let config = Config::parse(&path.display().to_string(), &text)?;
        match config.check() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(ConfigError::Problems { path: path.to_owned(), problems }),
        }
    }

    /// Parses, without checking the values' meaning. `name` is for the message.
    ///
    /// # Errors
    ///
    /// Fails when the text is no configuration; the message has the line and a suggestion.
    pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
        // Editors of Windows put a byte order mark first.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A file of comments alone is the defaults, as an empty one is.
        let bare = text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---");
        if bare {
            return Ok(Config::default());
        }
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| ConfigError::Parse(explain(name, text, &error)))
    }

    /// The file to use: `--config`, `NIGHTSHIFT_CONFIG`, `./nightshift.yaml`, `/etc/nightshift/nightshift.yaml`, or none.
    pub fn find(named: Option<&Path>) -> ConfigOrigin {
        if let Some(path) = named {
            return ConfigOrigin::Named(path.to_owned(), "--config");
        }
        if let Some(path) = std::env::var_os("NIGHTSHIFT_CONFIG").filter(|path| !path.is_empty()) {
            return ConfigOrigin::Named(PathBuf::from(path), "NIGHTSHIFT_CONFIG");
        }
        match PLACES.iter().map(PathBuf::from).find(|path| path.is_file()) {
            Some(path) => ConfigOrigin::Usual(path),
            None => ConfigOrigin::Defaults,
        }
    }

    /// Loads the configuration that was found.
    ///
    /// # Errors
    ///
    /// Fails as [`Config::load`] does; the defaults never fail.
    pub fn load_found(found: &ConfigOrigin) -> Result<Config, ConfigError> {
        match found {
            ConfigOrigin::Named(path, _) | ConfigOrigin::Usual(path) => Config::load(path),
            ConfigOrigin::Defaults => Ok(Config::default()),
        }
    }

    /// YAML with every default filled in and secrets as references; parses back to the same configuration.
    ///
    /// # Errors
    ///
    /// Fails when a value cannot be written as YAML.
    pub fn effective(&self) -> Result<String, String> {
        serde_saphyr::to_string(self).map_err(|error| format!("cannot print the configuration: {error}"))
    }
}

/// The candidate that was most likely meant: at most a third of the letters differ.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = word.chars().count().div_ceil(3).max(1);
    let near = candidates.into_iter().map(|candidate| (strsim::levenshtein(word, candidate), candidate));
    near.filter(|(far, _)| *far <= bound).min().map(|(_, candidate)| candidate)
}

/// The candidate with the fewest edits, however many: for lists that are too long to be read.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| (strsim::levenshtein(word, candidate), *candidate))
}

fn explain(name: &str, text: &str, error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let (line, column) = error.location().map_or((0, 0), |place| (place.line() as usize, place.column() as usize));
    let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let (title, help, keep_value) = match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
            let meant = match closest(field, expected.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", expected.join(", ")),
            };
            (format!("unknown key `{field}`"), Some(meant), false)
        }
        serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => {
            let meant = match closest(variant, expected.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("possible values: {}", expected.join(", ")),
            };
            (format!("`{variant}` is no such value"), Some(meant), true)
        }
        other => {
            let text = plain(&other.to_string());
            let shows = !text.contains(secret::MARK);
            (text, None, shows)
        }
    };
    render(name, line, column, &shown(source, keep_value), &title, help.as_deref())
}

/// One diagnostic in the shape of a compiler's.
fn render(name: &str, line: usize, column: usize, source: &str, title: &str, help: Option<&str>) -> String {
    let start = source.char_indices().nth(column.saturating_sub(1)).map_or(source.len(), |(at, _)| at);
    let rest = &source[start..];
    let word = rest.find(|c: char| c == ':' || c.is_whitespace()).unwrap_or(rest.len()).max(1);
    let end = (start + word).min(source.len()).max(start);
    let title = Level::ERROR.primary_title(title.to_owned());
    let mut group = if line == 0 {
        title.element(annotate_snippets::Origin::path(name.to_owned()))
    } else {
        let here = AnnotationKind::Primary.span(start..end);
        title.element(Snippet::source(source.to_owned()).line_start(line).path(name.to_owned()).annotation(here))
    };
    if let Some(help) = help {
        group = group.element(Level::HELP.message(help.to_owned()));
    }
    Renderer::plain().render(&[group])
}

/// A line of the file as it may be shown: without its value if the key may hold a secret, or is not known at all.
fn shown(line: &str, keep_value: bool) -> String {
    let Some((key, value)) = line.split_once(':') else { return line.to_owned() };
    let lower = key.to_lowercase();
    let touchy = ["token", "secret", "password", "key", "url", "header"].iter().any(|word| lower.contains(word));
    match value.trim() {
        "" => line.to_owned(),
        _ if keep_value && !touchy => line.to_owned(),
        _ => format!("{key}: …"),
    }
}

/// The parser's own words without their place, which we show better.
fn plain(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let first = message.split(" at line ").next().unwrap_or(message);
    let first = match first.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, text)) => text,
        None => first,
    };
    first.trim_end_matches([',', ' ']).to_owned()
}

fn count(problems: usize) -> String {
    if problems == 1 { "one thing".to_owned() } else { format!("{problems} things") }
}

fn list(problems: &[ConfigProblem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Config::parse("nightshift.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_what_was_meant() {
        let text = refusal("install: x\nchanels:\n  ops: { kind: log }\n");
        assert!(text.contains("unknown key `chanels`"), "{text}");
        assert!(text.contains("did you mean `channels`?"), "{text}");
        assert!(text.contains("nightshift.yaml:2:1"), "{text}");
    }

    #[test]
    fn a_literal_secret_is_refused_and_not_repeated() {
        for text in [
            "channels:\n  ops:\n    kind: slack\n    channel: C1\n    token: xoxb-canary\n",
            "channels:\n  ops: { kind: slack, channel: C1, token: xoxb-canary }\n",
            "prometheus:\n  url: http://p:9090\n  token: xoxb-canary\n",
            "prometheus:\n  url: http://p:9090\n  token: { value: xoxb-canary }\n",
            "prometheus:\n  url: http://p:9090\n  tokn: xoxb-canary\n",
            "server:\n  tokens: [{ name: a, role: admin, secret: xoxb-canary }]\n",
            "server:\n  tokens:\n    - name: a\n      role: admin\n      secret: [xoxb-canary]\n",
        ] {
            let refused = refusal(text);
            assert!(!refused.contains("canary"), "{refused}");
        }
        assert!(refusal("prometheus:\n  url: u\n  token: xoxb-canary\n").contains("{ env: NAME }"));
    }

    #[test]
    fn an_empty_file_and_one_of_comments_are_the_defaults() {
        assert_eq!(Config::parse("x", "").unwrap(), Config::default());
        assert_eq!(Config::parse("x", "# nothing\n---\n").unwrap(), Config::default());
    }

    #[test]
    fn the_effective_configuration_parses_back_to_itself() {
        let text = "channels:\n  ops: { kind: email, server: 'smtp://m:587', from: a@b, to: [c@d], username: u, \
                    password: { env: P } }\n  hook: { kind: slack-webhook, url: { file: /run/u } }\n\
                    sources:\n  prod: { kind: alertmanager, stale_after: 2h }\n";
        let config = Config::parse("x", text).unwrap();
        let printed = config.effective().unwrap();
        assert_eq!(Config::parse("printed", &printed).unwrap(), config, "{printed}");
        assert!(printed.contains("env: P"), "{printed}");
    }

    #[test]
    fn a_word_far_from_all_candidates_has_no_closest() {
        assert_eq!(closest("chanels", ["channels", "clusters"]), Some("channels"));
        assert_eq!(closest("zzz", ["channels", "clusters"]), None);
    }
}
