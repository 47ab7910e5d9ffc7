//! The header of a safetensors file: eight bytes of length, JSON, then the tensors without a gap.
//!
//! Invariant: no tensor's data is read, and no more of the header is kept than two numbers a tensor.

use crate::limits;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::io::{BufReader, Read};

/// The content of a good header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SafetensorsHeader {
    pub tensors: usize,
    /// Of all tensors together.
    pub data_bytes: u64,
}

/// Reads and checks a header against the file's size. Its names are removed from `wanted`.
pub(super) fn check(file: impl Read, size: u64, wanted: &mut HashSet<String>) -> Result<SafetensorsHeader, String> {
    let mut file = BufReader::with_capacity(64 * 1024, file);
    let mut first = [0_u8; 8];
    let unread = |error: std::io::Error| format!("cannot be read: {error}");
    if size < 8 {
        return Err(format!("has {size} bytes, too few for a header"));
    }
    file.read_exact(&mut first).map_err(unread)?;
    if first.starts_with(b"version ") {
        return Err("is a pointer of Git LFS, not the weights: run `git lfs pull`".to_owned());
    }
    let length = u64::from_le_bytes(first);
    if length > limits::SAFETENSORS_HEADER_BYTES {
        return Err(format!("is no safetensors file: its header would have {length} bytes"));
    }
    let data_at = 8 + length;
    if data_at > size {
        return Err(short(size, data_at, "its header alone needs"));
    }
    let mut spans = Vec::new();
    let mut json = serde_json::Deserializer::from_reader(file.take(length));
    TensorVisitor { spans: &mut spans, wanted }
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| format!("its header is broken: {error}"))?;
    spans.sort_unstable();
    let mut end = 0;
    for (from, to) in &spans {
        if *from != end || to < from {
            return Err(format!("its header is broken: a tensor starts at {from}, the previous one ends at {end}"));
        }
        end = *to;
    }
    let need = data_at.checked_add(end).ok_or("its header is broken: offsets overflow")?;
    match size.cmp(&need) {
        std::cmp::Ordering::Less => Err(short(size, need, "its header says")),
        std::cmp::Ordering::Greater => {
            Err(format!("has {size} bytes, its header requires {need}: {} too many", bytes(size - need)))
        }
        std::cmp::Ordering::Equal => Ok(SafetensorsHeader { tensors: spans.len(), data_bytes: end }),
    }
}

fn short(size: u64, need: u64, says: &str) -> String {
    let missing = need - size;
    let verb = if missing == 1 { "is" } else { "are" };
    format!("has {size} bytes, {says} {need}: {} {verb} missing", bytes(missing))
}

fn bytes(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

#[derive(Deserialize)]
struct TensorEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

struct TensorVisitor<'a> {
    spans: &'a mut Vec<(u64, u64)>,
    wanted: &'a mut HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for TensorVisitor<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let TensorEntry { dtype, shape, data_offsets } = map.next_value()?;
            let (from, to) = data_offsets;
            if let Some(bits) = bits(&dtype) {
                let items = shape.iter().try_fold(1_u64, |product, side| product.checked_mul(*side));
                let size = items.and_then(|items| items.checked_mul(bits)).map(|bits| bits.div_ceil(8));
                if size != to.checked_sub(from) {
                    let name: String = name.chars().take(limits::QUOTE_CHARS).collect();
                    return Err(A::Error::custom(format_args!("tensor {name:?} does not fill its place")));
                }
            }
            if self.spans.len() >= limits::CACHE_TENSORS {
                return Err(A::Error::custom(format_args!("more than {} tensors", limits::CACHE_TENSORS)));
            }
            self.wanted.remove(&name);
            self.spans.push((from, to));
        }
        Ok(())
    }
}

/// Bits of one element. A type that came after this was written is not judged.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn said(bytes: &[u8]) -> String {
        check(bytes, bytes.len() as u64, &mut HashSet::new()).unwrap_err()
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;

    #[test]
    fn a_good_header_names_its_tensors() {
        let bytes = file(TWO, 24);
        let mut wanted: HashSet<String> = ["a", "c"].map(str::to_owned).into();
        let header = check(&bytes[..], bytes.len() as u64, &mut wanted).unwrap();
        assert_eq!(header, SafetensorsHeader { tensors: 2, data_bytes: 24 });
        assert_eq!(wanted, ["c".to_owned()].into());
    }

    #[test]
    fn one_byte_less_and_one_byte_more_are_told() {
        assert!(said(&file(TWO, 23)).ends_with("1 byte is missing"), "{}", said(&file(TWO, 23)));
        assert!(said(&file(TWO, 25)).ends_with("1 byte too many"));
        assert!(said(&file(TWO, 24)[..20]).contains("its header alone needs"));
    }

    #[test]
    fn what_is_no_safetensors_file_is_refused_in_words() {
        assert!(said(b"").contains("too few"));
        assert!(said(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(said(&[0xff; 64]).contains("no safetensors file"));
        assert!(said(&file("[1]", 0)).contains("its header is broken"));
        assert!(said(&file("{}x", 0)).contains("its header is broken"));
        let hole = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
        assert!(said(&file(hole, 8)).contains("a tensor starts at 4"));
        let wrong = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}"#;
        assert!(said(&file(wrong, 8)).contains("does not fill its place"));
        let huge = r#"{"a":{"dtype":"F32","shape":[4294967295,4294967295,4294967295],"data_offsets":[0,8]}}"#;
        assert!(said(&file(huge, 8)).contains("does not fill its place"));
    }
}
