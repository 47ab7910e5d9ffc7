//! Labels: a source's name-value pairs, sorted, and the fingerprint that names the set.
//!
//! Invariant: names are unique and sorted bytewise, and no value is empty (an empty label does not exist).

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A sorted set of labels. A label is data, never code.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// The value of a label; a label that is missing is the empty string, as Alertmanager has it.
    pub fn get(&self, name: &str) -> &str {
        match self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)) {
            Ok(at) => &self.0[at].1,
            Err(_) => "",
        }
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.binary_search_by(|(key, _)| key.cmp(&name)) {
            Ok(at) if value.is_empty() => drop(self.0.remove(at)),
            Ok(at) => self.0[at].1 = value,
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Alertmanager's fingerprint: FNV-1a-64 over the names in order, each `name 0xFF value 0xFF`.
    /// Not cryptographic: compare the labels before two sets are called the same.
    pub fn fingerprint(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = OFFSET;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
            hash = (hash ^ 0xff).wrapping_mul(PRIME);
        };
        for (name, value) in &self.0 {
            eat(name.as_bytes());
            eat(value.as_bytes());
        }
        hash
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let mut list: Vec<(String, String)> =
            pairs.into_iter().map(|(n, v)| (n.into(), v.into())).filter(|(_, v)| !v.is_empty()).collect();
        // A stable sort keeps the order of equal names, so "the last one wins" holds as in JSON parsers.
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list.reverse();
        list.dedup_by(|a, b| a.0 == b.0);
        list.reverse();
        Labels(list)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl schemars::JsonSchema for Labels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Labels".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "Names and values as the source wrote them; no value is empty.",
            "additionalProperties": { "type": "string" },
        })
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(8).min(64));
                while let Some(pair) = map.next_entry::<String, String>()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_alertmanagers() {
        let mut labels: Labels = [
            ("severity", "critical"),
            ("job", "node"),
            ("instance", "localhost:8081"),
            ("group", "production"),
            ("alertname", "InstanceDown"),
        ]
        .into_iter()
        .collect();
        assert_eq!(format!("{:016x}", labels.fingerprint()), "f404ecabc8dd5cd7");
        labels.set("group", "canary");
        labels.set("instance", "localhost:8082");
        assert_eq!(format!("{:016x}", labels.fingerprint()), "f8f08d4e32c61a9d");
        assert_eq!(format!("{:016x}", Labels::default().fingerprint()), "cbf29ce484222325");
    }

    #[test]
    fn an_empty_value_is_no_label_and_the_last_of_two_wins() {
        let labels: Labels = serde_json::from_str(r#"{"b":"1","a":"","b":"2"}"#).unwrap();
        assert_eq!(labels.len(), 1);
        assert_eq!(labels.get("b"), "2");
        assert_eq!(labels.get("a"), "");
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"{"b":"2"}"#);
    }
}
