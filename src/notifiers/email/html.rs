//! HTML of a mail as a typed tree, so that no text can become a tag.
//!
//! Invariant: every text and attribute is escaped when it is written; tags and attribute names are our own constants.

use crate::notifiers::text;

/// A node of the tree.
pub enum Html {
    Text(String),
    Tag { name: &'static str, attributes: Vec<(&'static str, String)>, inside: Vec<Html> },
}

/// Text of at most `max` characters.
pub fn words(words: &str, max: usize) -> Html {
    // The bound holds before escaping: a mail has room for entities.
    Html::Text(text::plain(words, max))
}

/// An element with a `style` attribute, where it is not empty.
pub fn tag(name: &'static str, style: &'static str, inside: Vec<Html>) -> Html {
    let attributes = if style.is_empty() { Vec::new() } else { vec![("style", style.to_owned())] };
    Html::Tag { name, attributes, inside }
}

/// A link; its text is escaped and cut.
pub fn link(href: &str, inside: &str) -> Html {
    Html::Tag { name: "a", attributes: vec![("href", href.to_owned())], inside: vec![words(inside, 200)] }
}

impl Html {
    /// The whole document.
    pub fn page(self) -> String {
        let mut out = String::from("<!doctype html><html><head><meta charset=\"utf-8\"></head>");
        self.write(&mut out);
        out.push_str("</html>");
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Html::Text(words) => out.push_str(&text::html(words, usize::MAX)),
            Html::Tag { name, attributes, inside } => {
                out.push('<');
                out.push_str(name);
                for (attribute, value) in attributes {
                    out.push_str(&format!(" {attribute}=\"{}\"", text::html(value, usize::MAX)));
                }
                out.push('>');
                for node in inside {
                    node.write(out);
                }
                out.push_str(&format!("</{name}>"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_text_in_every_place() {
        let hostile = "</p><script>alert(1)</script>\" onclick='x'";
        let page = tag("p", "", vec![words(hostile, 500), link(hostile, hostile)]).page();
        assert!(!page.contains("<script") && !page.contains("\" onclick") && !page.contains("' onclick"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }
}
