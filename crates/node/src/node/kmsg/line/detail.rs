//! The details in an XID's own text: the unit of the chip, the link, the driver's request, the cause.
//!
//! Invariant: a detail that is not there, or not in a known form, is left out; nothing is guessed.

use super::XidLine;
use std::collections::BTreeMap;

/// Labels of this XID beside its code and its GPU.
pub(in crate::node::kmsg) fn detail(xid: &XidLine<'_>) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::new();
    let rest = xid.rest;
    let mut put = |name: &'static str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(name, value);
        }
    };
    put("pid", xid.pid.map(|pid| pid.to_string()));
    put("process", Some(xid.process.to_owned()));
    put("caused_by", number_after(rest, "caused by previous Xid ").map(|code| code.to_string()));
    match xid.code {
        13 => {
            for (name, word) in [("gpc", "GPC "), ("tpc", "TPC "), ("sm", "SM ")] {
                put(name, number_after(rest, word).map(|number| number.to_string()));
            }
        }
        63 if rest.contains("reset gpu to activate") => put("row_remap", Some("pending".to_owned())),
        74 => {
            put("fatal", rest.contains("fatal error").then(|| "yes".to_owned()));
            put("link", number_after(rest, "link ").map(|link| link.to_string()));
            put("registers", hex_words(rest).filter(|words| words.len() == 7).map(|words| spell(&words)));
        }
        94 | 95 => {
            put("rst", word_after(rest, " RST: "));
            put("drain_rst", word_after(rest, "D-RST: "));
        }
        144..=150 => nvlink5(rest, &mut put),
        154 => put("recovery", Some(recovery(rest).unwrap_or("unknown").to_owned())),
        _ => {}
    }
    labels
}

/// NVLink 5: `NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 …)`.
fn nvlink5(rest: &str, put: &mut impl FnMut(&'static str, Option<String>)) {
    let unit = rest.split_whitespace().next().unwrap_or_default();
    let named = unit.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_');
    put("unit", (named && unit.len() > 2).then(|| unit.to_owned()));
    let words = rest.split_whitespace().map(str::to_ascii_lowercase);
    let fatal = words.filter_map(|word| match word.as_str() {
        "fatal" => Some("yes"),
        "nonfatal" | "non-fatal" => Some("no"),
        _ => None,
    });
    put("fatal", fatal.into_iter().next().map(str::to_owned));
    // `Link -1` is no link in particular.
    put("link", number_after(rest, "Link ").map(|link| link.to_string()));
    let Some(words) = hex_words(rest) else { return };
    // Older drivers print one word in square brackets, which is not the word with the sub-code.
    if rest.contains('(') {
        put("subcode", words.first().map(|word| (word >> 20 & 0x3f).to_string()));
        put("status", words.get(1).map(|word| format!("0x{word:08x}")));
    }
}

/// The driver's wish, from the *last* bracket of `changed from 0x0 (None) to 0x1 (GPU Reset Required)`.
pub(super) fn recovery(rest: &str) -> Option<&'static str> {
    let (before, _) = rest.rsplit_once(')')?;
    let (_, words) = before.rsplit_once('(')?;
    Some(match words.trim().to_ascii_lowercase().as_str() {
        "none" => "none",
        "gpu reset required" | "gpu reset" | "reset" => "gpu-reset",
        "node reboot required" | "node reboot" | "reboot" => "node-reboot",
        "drain p2p" | "drain peer to peer" => "drain-p2p",
        "drain and reset" => "drain-and-reset",
        _ => "unknown",
    })
}

/// The number behind the first occurrence of a word that a number follows.
pub(super) fn number_after(text: &str, word: &str) -> Option<u32> {
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        rest = &rest[at + word.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if let Ok(number) = rest[..digits].parse() {
            return Some(number);
        }
    }
    None
}

fn word_after(text: &str, label: &str) -> Option<String> {
    let (_, rest) = text.split_once(label)?;
    let word: String = rest.chars().take_while(char::is_ascii_alphabetic).take(8).collect();
    Some(word.to_ascii_lowercase())
}

/// The hex words of the last bracket, round or square.
fn hex_words(text: &str) -> Option<Vec<u32>> {
    let open = text.rfind(['(', '['])?;
    let inner = &text[open + 1..];
    let inner = &inner[..inner.find([')', ']']).unwrap_or(inner.len())];
    let words = inner.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(|word| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()).collect()
}

fn spell(words: &[u32]) -> String {
    words.iter().map(|word| format!("{word:#x}")).collect::<Vec<_>>().join(" ")
}
