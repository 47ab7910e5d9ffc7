//! Identifiers: small numbers that a user can read out on the phone, given by the store in order.
//!
//! Invariant: an identifier prints with the letter of its kind (`r17`, `i3`) and parses back from exactly that.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}: write the letter `{letter}` and a number, as in `{letter}17`")]
pub struct IdError {
    pub text: String,
    pub wanted: &'static str,
    pub letter: char,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $letter, self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($letter)
                    .and_then(|digits| digits.parse::<i64>().ok())
                    .filter(|number| *number >= 0)
                    .map($name)
                    .ok_or_else(|| IdError { text: text.to_owned(), wanted: $wanted, letter: $letter })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": concat!("^", $letter, "[0-9]+$"),
                    "description": concat!("The identifier of ", $wanted, ": the letter `", $letter, "` and a number."),
                })
            }
        }
    };
}

id!(
    /// One firing-to-resolved span of one alert.
    EpisodeId, 'e', "an episode"
);
id!(
    /// The episodes that are one problem for a user.
    IncidentId, 'i', "an incident"
);
id!(
    /// One execution of a pinned runbook.
    RunId, 'r', "a run"
);
id!(
    /// One question to a user.
    ApprovalId, 'a', "an approval"
);
id!(
    /// One token that was made here.
    TokenId, 't', "a token"
);
id!(
    /// The position of one entry in the ledger, from 0.
    EntryNo, '#', "a ledger entry"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_prints_and_parses_with_its_letter() {
        assert_eq!(RunId(17).to_string(), "r17");
        assert_eq!("r17".parse(), Ok(RunId(17)));
        for wrong in ["17", "i17", "r", "r-1", "r1x", ""] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::to_string(&EntryNo(4)).unwrap(), "\"#4\"");
    }
}
