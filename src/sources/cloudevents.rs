//! CloudEvents 1.0 in binary mode: the attributes travel as `ce-*` headers beside the data.
//!
//! Invariant: the result has the form of structured mode, so that one shape reads all modes.

use crate::limits;
use base64::Engine as _;
use serde_json::{Map, Value};

/// The attributes of a binary-mode event, percent-decoded; empty for any other request.
pub fn attributes<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let mut found = Map::new();
    for (name, value) in headers.take(limits::HEADERS) {
        if let Some(attribute) = name.strip_prefix("ce-").filter(|rest| !rest.is_empty()) {
            found.insert(attribute.to_owned(), Value::String(percent_decoded(value)));
        } else if name == "content-type" {
            found.insert("datacontenttype".to_owned(), Value::String(value.to_owned()));
        }
    }
    if !found.contains_key("specversion") {
        found.clear();
    }
    found
}

/// Attributes and data as one structured event.
pub fn structured(mut attributes: Map<String, Value>, body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Object(attributes);
    }
    match serde_json::from_slice(body) {
        Ok(data) => attributes.insert("data".to_owned(), data),
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(body);
            attributes.insert("data_base64".to_owned(), Value::String(text))
        }
    };
    Value::Object(attributes)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn binary_mode_becomes_structured_mode() {
        let headers = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/fleet/%E2%82%AC%20x%zz"),
            ("authorization", "Bearer secret"),
        ];
        let event = structured(attributes(headers.into_iter()), br#"{"a":1}"#);
        let expected = json!({
            "specversion": "1.0", "id": "7", "source": "/fleet/€ x%zz",
            "datacontenttype": "application/json", "data": { "a": 1 },
        });
        assert_eq!(event, expected);
        assert!(attributes([("content-type", "application/json"), ("ce-id", "7")].into_iter()).is_empty());
        assert_eq!(structured(Map::new(), b"\xff")["data_base64"], "/w==");
    }
}
