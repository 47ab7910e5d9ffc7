//! The pages of the reason codes, compiled in: meaning, situation, checks, commands.
//!
//! Invariant: every code has exactly one page.

use crate::model::ReasonCode;

const PAGES: &str = include_str!("reasons.md");

/// The page of a code, without its heading.
pub(super) fn page(code: ReasonCode) -> &'static str {
    section(code.name()).unwrap_or_default()
}

fn section(name: &str) -> Option<&'static str> {
    PAGES.split("\n## ").skip(1).find_map(|part| {
        let (heading, text) = part.split_once('\n')?;
        (heading.trim() == name).then(|| text.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_code_has_one_page_of_four_to_ten_lines_with_a_command() {
        for code in ReasonCode::ALL {
            let page = section(code.name()).unwrap_or_else(|| panic!("no page for {}", code.name()));
            let lines = page.lines().filter(|line| !line.trim().is_empty()).count();
            assert!((4..=10).contains(&lines), "{}: {lines} lines", code.name());
            assert!(page.contains("nightshift "), "{}: no command", code.name());
        }
        assert_eq!(PAGES.matches("\n## ").count(), ReasonCode::ALL.len(), "a page without a code, or two of one");
    }
}
