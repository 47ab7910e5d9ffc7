//! Text from outside, made fit for a message: one line, nothing invisible or reordering, never longer than it may be.
//!
//! Invariant: the result has at most `max` UTF-16 units, no control or bidirectional character, and is cut between
//! characters (and between escapes), with an ellipsis where something was left out.

use crate::limits::LINK_BYTES;
use crate::model::Time;

/// For places that show text as it stands: plain-text blocks, mail, JSON.
pub fn plain(text: &str, max: usize) -> String {
    fit(text, max, |_| None)
}

/// For Slack's mrkdwn: `&`, `<` and `>` make a mention, a channel or a link, so they never get through.
pub fn slack(text: &str, max: usize) -> String {
    fit(text, max, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}

/// An address that a user may follow: http or https, without credentials, and nothing that could end the place it
/// stands in. HTML and Slack still need its `&` escaped.
pub fn link(text: &str) -> Option<&str> {
    let web = text.starts_with("https://") || text.starts_with("http://");
    let clean = text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '|' | '"' | '\''));
    if !web || !clean || text.len() > LINK_BYTES {
        return None;
    }
    // `https://google.com@evil.example` is made to be misread.
    let url = url::Url::parse(text).ok()?;
    let honest = url.username().is_empty() && url.password().is_none() && url.host_str().is_some();
    honest.then_some(text)
}

/// A link of Slack's mrkdwn, `<url|label>`; `label` is our own word. None where the address is not one for humans.
pub fn slack_link(url: &str, label: &str) -> Option<String> {
    link(url).map(|url| format!("<{}|{label}>", url.replace('&', "&amp;")))
}

/// A time of Slack's mrkdwn: each reader sees it in their own zone; where that fails, in UTC.
pub fn slack_time(at: Time, format: SlackTime) -> String {
    let (format, fallback) = match format {
        SlackTime::Clock => ("{time}", at.strftime("%H:%M UTC")),
        SlackTime::Day => ("{date_short_pretty} {time}", at.strftime("%-d %b %H:%M UTC")),
    };
    format!("<!date^{}^{format}|{fallback}>", at.as_second())
}

/// How much of a time Slack shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlackTime {
    Clock,
    /// With the day: `today`, `yesterday` or a date.
    Day,
}

fn fit(text: &str, max: usize, escape: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let mut units = 0;
    // Where the text ends if the ellipsis must follow: the last place with one unit to spare.
    let mut spare = 0;
    let mut buffer = [0; 4];
    let mut visible = String::new();
    for c in text.chars() {
        let piece = if is_break(c) {
            " "
        } else if is_unseen(c) {
            visible.clear();
            visible.extend(c.escape_unicode());
            visible.as_str()
        } else if let Some(escaped) = escape(c) {
            escaped
        } else {
            c.encode_utf8(&mut buffer)
        };
        let size = piece.encode_utf16().count();
        if units + size > max {
            out.truncate(spare);
            out.push('…');
            return out;
        }
        out.push_str(piece);
        units += size;
        if units < max {
            spare = out.len();
        }
    }
    out
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Characters that cannot be seen but change the text: controls, direction marks, zero width, tags, specials.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffc}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mention_a_link_and_a_tag_lose_their_power() {
        assert_eq!(slack("<!channel> & <https://x|y>", 100), "&lt;!channel&gt; &amp; &lt;https://x|y&gt;");
    }

    #[test]
    fn what_cannot_be_seen_is_made_visible_and_lines_are_joined() {
        assert_eq!(plain("a\u{202e}b\0c\r\nd\u{1b}[31m", 100), "a\\u{202e}b\\u{0}c  d\\u{1b}[31m");
        assert_eq!(plain("größe 👩‍🔧 日本", 100), "größe 👩‍🔧 日本");
    }

    #[test]
    fn a_cut_falls_between_characters_and_never_inside_an_escape() {
        assert_eq!(plain("abcdef", 6), "abcdef");
        assert_eq!(plain("abcdefg", 6), "abcde…");
        assert_eq!(slack("ab<<<<", 8), "ab&lt;…");
        assert_eq!(plain("👍👍👍", 4), "👍…");
        assert_eq!(plain("ab", 1), "…");
        for max in 1..40 {
            let cut = slack(&"<é👍&\u{202e}".repeat(50), max);
            assert!(cut.encode_utf16().count() <= max, "{max}: {cut}");
            assert!(cut.ends_with('…'));
        }
    }

    #[test]
    fn a_link_is_only_what_a_browser_opens_and_cannot_leave_its_place() {
        assert_eq!(link("https://ns.example/incidents/i3"), Some("https://ns.example/incidents/i3"));
        let query = "http://prometheus:9090/graph?g0.expr=up&g0.tab=1";
        assert_eq!(link(query), Some(query));
        assert_eq!(slack_link(query, "Graph").unwrap(), "<http://prometheus:9090/graph?g0.expr=up&amp;g0.tab=1|Graph>");
        for wrong in [
            "javascript:alert(1)",
            "https://x/>|<!channel",
            "https://x/ y",
            "",
            "http://x/\"onclick",
            "https://google.com@evil.example/",
            "https://",
        ] {
            assert_eq!(link(wrong), None, "{wrong}");
            assert_eq!(slack_link(wrong, "Graph"), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_in_slack_is_the_readers_own_with_utc_where_that_fails() {
        let at = "2026-11-23T03:12:00Z".parse().unwrap();
        assert_eq!(slack_time(at, SlackTime::Clock), "<!date^1795403520^{time}|03:12 UTC>");
        assert_eq!(slack_time(at, SlackTime::Day), "<!date^1795403520^{date_short_pretty} {time}|23 Nov 03:12 UTC>");
    }
}
