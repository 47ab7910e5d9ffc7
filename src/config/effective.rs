//! The configuration in force as YAML, each value that no file sets marked as a default.
//!
//! Invariant: marks are comments: the printed text parses back to the same configuration.

use super::Config;
use serde_json::Value;

const MARK: &str = "  # default";

impl Config {
    /// YAML with every default filled in and marked; `file` is the text that this configuration was read from.
    ///
    /// # Errors
    /// If the configuration cannot be written as YAML.
    pub fn effective_marked(&self, file: &str) -> Result<String, String> {
        // A file of comments alone is no mapping: then everything is a default.
        let set: Value = serde_saphyr::from_str(file).unwrap_or_default();
        Ok(marked(&self.effective()?, &set))
    }
}

/// Marks each line whose key stands nowhere in `set`.
fn marked(yaml: &str, set: &Value) -> String {
    let mut out = String::with_capacity(yaml.len() * 2);
    // Keys above the current line, each with its indentation.
    let mut above: Vec<(usize, String)> = Vec::new();
    // The indentation of a text of several lines, which a comment would become part of.
    let mut text: Option<usize> = None;
    for line in yaml.lines() {
        let indent = line.len() - line.trim_start().len();
        text = text.filter(|at| indent > *at || line.trim().is_empty());
        out.push_str(line);
        if text.is_none()
            && let Some((key, value)) = entry(line)
        {
            above.retain(|(at, _)| *at < indent);
            above.push((indent, key.to_owned()));
            if value.starts_with(['|', '>']) {
                text = Some(indent);
            } else if !stands(&above, set) {
                out.push_str(MARK);
            }
        }
        out.push('\n');
    }
    out
}

/// Key and value of a line of a mapping; none for items of lists, which are set or not as a whole.
fn entry(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.starts_with('-') {
        return None;
    }
    let (key, value) = line.split_once(':')?;
    Some((key.trim_matches(['"', '\'']), value.trim()))
}

fn stands(path: &[(usize, String)], set: &Value) -> bool {
    let mut at = set;
    for (_, key) in path {
        match at {
            Value::Object(map) => match map.get(key) {
                Some(value) => at = value,
                None => return false,
            },
            // Inside a list, or a scalar that stands for more: it was written.
            Value::Null => return false,
            _ => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_does_not_set_is_marked_and_the_print_reads_back() {
        let file = "install: gpu\nchannels:\n  oncall: { kind: slack, channel: C1, token: { file: t } }\nguards: { nodes_at_once: 2 }\n";
        let config = Config::parse("x", file).unwrap();
        let printed = config.effective_marked(file).unwrap();
        assert_eq!(Config::parse("printed", &printed).unwrap(), config, "{printed}");
        let line = |key: &str| printed.lines().find(|line| line.trim().starts_with(key)).unwrap().to_owned();
        for set in ["install:", "channel:", "kind:", "file:", "nodes_at_once:"] {
            assert!(!line(set).contains(MARK), "{printed}");
        }
        for default in ["data_dir:", "domains:", "api:", "buttons:", "share_at_once:", "mode_ceiling:", "listen:"] {
            assert!(line(default).ends_with(MARK), "{default}\n{printed}");
        }
        let empty = Config::default().effective_marked("# nothing\n").unwrap();
        assert!(empty.lines().any(|line| line == "install: nightshift  # default"), "{empty}");
    }
}
