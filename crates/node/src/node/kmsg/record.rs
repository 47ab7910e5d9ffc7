//! One record of the kernel log: `prio,seq,usec,flags;text`, then lines that begin with a space (the device's dictionary).
//!
//! Invariant: any bytes give a record or nothing, never a panic; bytes that cannot be a header are taken as text
//! without a number.

use crate::limits;
use std::borrow::Cow;

/// A record as it was read. Where the source is a plain file, a line without a header has no number and no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelRecord<'r> {
    pub seq: Option<u64>,
    /// Since boot.
    pub micros: Option<u64>,
    /// With escapes (`\x0a`), as the kernel gives it.
    raw: &'r [u8],
}

impl<'r> KernelRecord<'r> {
    /// Takes the header off. `None` for nothing and for a continuation line that stands alone.
    pub fn parse(bytes: &'r [u8]) -> Option<KernelRecord<'r>> {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if first.is_empty() || first[0] == b' ' {
            return None;
        }
        let bare = KernelRecord { seq: None, micros: None, raw: first };
        let Some(semicolon) = first.iter().position(|byte| *byte == b';') else { return Some(bare) };
        let header = first[..semicolon].split(|byte| *byte == b',');
        let mut numbers = header.map(number);
        let (Some(Some(_)), Some(Some(seq)), Some(Some(micros))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return Some(bare);
        };
        Some(KernelRecord { seq: Some(seq), micros: Some(micros), raw: &first[semicolon + 1..] })
    }

    /// Whether it may be the GPU driver's: called for every line, so it looks at bytes only.
    pub fn may_concern_us(&self) -> bool {
        find(self.raw, b"NVRM").is_some() || find(self.raw, b"nvidia-nvswitch").is_some()
    }

    /// The text, bounded; escapes are undone, so one record may hold several lines.
    pub fn text(&self) -> Cow<'r, str> {
        let raw = &self.raw[..self.raw.len().min(limits::KERNEL_LINE_BYTES)];
        if !raw.contains(&b'\\') {
            return String::from_utf8_lossy(raw);
        }
        let mut bytes = Vec::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((byte, behind)) = rest.split_first() {
            let escaped = match rest {
                [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
                _ => None,
            };
            bytes.push(escaped.unwrap_or(*byte));
            rest = if escaped.is_some() { &rest[4..] } else { behind };
        }
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == wanted[0]) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_header_and_its_text_and_the_dictionary_is_left_out() {
        let record =
            KernelRecord::parse(b"3,1423,98123456,-;NVRM: Xid (PCI:0000:65:00): 79\n SUBSYSTEM=pci\n DEVICE=+pci\n");
        let record = record.unwrap();
        assert_eq!((record.seq, record.micros), (Some(1_423), Some(98_123_456)));
        assert_eq!(record.text(), "NVRM: Xid (PCI:0000:65:00): 79");
        assert!(record.may_concern_us());
        let newer = KernelRecord::parse(b"6,7,8,-,caller=T1;usb 1-1: new; device").unwrap();
        assert_eq!((newer.seq, newer.text().as_ref()), (Some(7), "usb 1-1: new; device"));
        assert!(!newer.may_concern_us());
    }

    #[test]
    fn escapes_are_undone_and_a_record_may_hold_several_lines() {
        let record = KernelRecord::parse(br"3,1,2,-;NVRM: The NVIDIA GPU 0000:18:00.0\x0aNVRM: has\x zz \x5c").unwrap();
        assert_eq!(record.text(), "NVRM: The NVIDIA GPU 0000:18:00.0\nNVRM: has\\x zz \\");
    }

    #[test]
    fn what_is_no_header_is_text_and_nothing_is_nothing() {
        for torn in
            ["3,14", "3,,4,-;x", "a,b,c;d", "3,99999999999999999999,1,-;x", ";", "NVRM: Xid (PCI:0000:05:00): 79"]
        {
            let record = KernelRecord::parse(torn.as_bytes()).unwrap();
            assert_eq!((record.seq, record.text().as_ref()), (None, torn), "{torn}");
        }
        for nothing in ["", "\n", " DEVICE=c1:3"] {
            assert_eq!(KernelRecord::parse(nothing.as_bytes()), None, "{nothing}");
        }
        assert_eq!(KernelRecord::parse(b"1,2,3,-;\xff\xfe").unwrap().text(), "\u{fffd}\u{fffd}");
    }
}
