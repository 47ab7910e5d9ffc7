//! The export of a ledger as JSON lines, and a verifier that needs nothing but the export and a public key.
//!
//! Invariant: a report comes only from an export whose every line was checked; the first bad entry is named.

use super::{Checkpoint, EntryLeaf, LeafHash, PublicKey, TreeFrontier, commitment, verify_note};
use crate::model::EntryNo;
use crate::store::RawEntry;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::io::{BufRead, Read, Write};

/// The format's name and version, in the header line.
const FORMAT: &str = "nightshift-ledger/1";
/// No line is longer: a body of one request, escaped as JSON inside JSON, and some.
const LINE_BYTES: u64 = 8 * crate::limits::BODY_BYTES as u64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportHeader {
    format: String,
    entries: u64,
    public_key: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportLine {
    no: i64,
    at: i64,
    commit: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    body: Option<String>,
}

/// The content of a good export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    pub entries: u64,
    /// Entries whose body was removed on purpose; their place and hash are proven all the same.
    pub redacted: u64,
    pub checkpoints: u64,
    /// Entries that the last checkpoint covers; later ones are not yet vouched for.
    pub signed: u64,
    pub root: LeafHash,
}

/// The error, and its first place.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read the export: {0}")]
    Io(#[from] std::io::Error),
    #[error("line {line}: {what}")]
    Malformed { line: u64, what: String },
    #[error("entry #{no} differs from the entry that was written: {what}")]
    BadEntry { no: u64, what: String },
    #[error("the checkpoint over {size} entries: {what}")]
    BadCheckpoint { size: u64, what: String },
    #[error(
        "the entries after #{after} and up to #{upto} do not give the root that was signed: one of them was altered, \
         removed or added"
    )]
    WrongRoot { after: i64, upto: u64 },
    #[error("the export has no signed checkpoint, so it cannot be verified")]
    Unsigned,
    #[error("the export holds {found} entries, its header lists {said}")]
    Incomplete { said: u64, found: u64 },
}

/// Writes header, entries and checkpoints, a line of JSON each; checkpoints must come in the order of their size. Neither
/// is gathered: a ledger of years is written in the memory of one page.
///
/// # Errors
///
/// Fails when `out` cannot be written, or a body is no UTF-8.
pub fn write_export<W: Write>(
    out: &mut W,
    public_key: &PublicKey,
    size: u64,
    entries: impl IntoIterator<Item = RawEntry>,
    checkpoints: impl IntoIterator<Item = impl Borrow<Checkpoint>>,
) -> std::io::Result<()> {
    let mut line = |value: &dyn erased::WriteJson| -> std::io::Result<()> {
        value.write(out)?;
        out.write_all(b"\n")
    };
    line(&ExportHeader { format: FORMAT.to_owned(), entries: size, public_key: public_key.to_string() })?;
    for entry in entries {
        let body = entry.body.map(String::from_utf8).transpose().map_err(std::io::Error::other)?;
        let salt = entry.salt.as_deref().map(hex::encode);
        line(&ExportLine { no: entry.no.0, at: entry.at, commit: entry.commit.to_string(), salt, body })?;
    }
    checkpoints.into_iter().try_for_each(|checkpoint| {
        let checkpoint: &Checkpoint = checkpoint.borrow();
        line(checkpoint)
    })
}

/// Checks an export: every body against its commitment, every entry's place, and every checkpoint's root and signature.
///
/// # Errors
///
/// Fails with the first error: the reader's, or one in the export, with its line.
pub fn verify_export<R: BufRead>(mut reader: R, public_key: &PublicKey) -> Result<ExportReport, VerifyError> {
    let mut lines = LineReader { reader: &mut reader, line: 0, text: Vec::new() };
    let header: ExportHeader = lines.next()?.ok_or_else(|| malformed(1, "the export is empty"))?;
    if header.format != FORMAT {
        return Err(malformed(1, format!("the format is `{}`, not `{FORMAT}`", header.format)));
    }
    if header.public_key != public_key.to_string() {
        return Err(malformed(1, format!("the export names another public key: `{}`", header.public_key)));
    }
    let mut frontier = TreeFrontier::default();
    let mut redacted = 0;
    // Roots are needed at the sizes of checkpoints, which come last: they are looked up among the leaves kept here.
    let mut leaves = Vec::new();
    while frontier.size() < header.entries {
        let no = frontier.size();
        let line = match lines.next::<ExportLine>() {
            Ok(Some(line)) => line,
            Ok(None) => return Err(VerifyError::Incomplete { said: header.entries, found: no }),
            Err(VerifyError::Malformed { line, what }) => {
                return Err(VerifyError::BadEntry { no, what: format!("line {line}: {what}") });
            }
            Err(error) => return Err(error),
        };
        let leaf = check_entry(&line, no)?;
        redacted += u64::from(line.body.is_none());
        frontier.push(leaf);
        leaves.push(leaf);
    }
    let root = frontier.root();
    let (checkpoints, signed) = check_checkpoints(&mut lines, &leaves, public_key)?;
    if checkpoints == 0 {
        return Err(VerifyError::Unsigned);
    }
    Ok(ExportReport { entries: header.entries, redacted, checkpoints, signed, root })
}

fn check_entry(line: &ExportLine, no: u64) -> Result<LeafHash, VerifyError> {
    let bad = |what: &str| VerifyError::BadEntry { no, what: what.to_owned() };
    if u64::try_from(line.no) != Ok(no) {
        return Err(VerifyError::BadEntry { no, what: format!("its place is taken by #{}", line.no) });
    }
    let commit = unhex(&line.commit).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| bad("no commitment"))?;
    let commit = LeafHash(commit);
    match (&line.salt, &line.body) {
        (None, None) => {}
        (Some(salt), Some(body)) => {
            let salt = unhex(salt).ok_or_else(|| bad("its salt is not hex"))?;
            if commitment(&salt, body.as_bytes()) != commit {
                return Err(bad("body and commitment differ"));
            }
        }
        _ => return Err(bad("salt and body must go together")),
    }
    Ok(EntryLeaf { no: EntryNo(line.no), at: line.at, commit }.hash())
}

/// Checks the checkpoints one after another. They come in the order of their size, so the first wrong root bounds where the
/// damage is, and none is kept.
fn check_checkpoints<R: BufRead>(
    lines: &mut LineReader<'_, R>,
    leaves: &[LeafHash],
    public_key: &PublicKey,
) -> Result<(u64, u64), VerifyError> {
    let (mut count, mut good) = (0, 0);
    let mut frontier = TreeFrontier::default();
    while let Some(checkpoint) = lines.next::<Checkpoint>()? {
        let bad = |what: String| VerifyError::BadCheckpoint { size: checkpoint.size, what };
        let said = verify_note(&checkpoint.note, public_key).map_err(|error| bad(error.to_string()))?;
        if said.size != checkpoint.size {
            return Err(bad(format!("its note speaks of {} entries", said.size)));
        }
        if said.size > leaves.len() as u64 {
            return Err(bad(format!("the export ends at {} entries: the rest was cut off", leaves.len())));
        }
        if said.size < good {
            return Err(bad(format!("it comes after the one over {good} entries, and must come before it")));
        }
        for leaf in &leaves[good as usize..said.size as usize] {
            frontier.push(*leaf);
        }
        if said.root != frontier.root() {
            return Err(VerifyError::WrongRoot { after: good as i64 - 1, upto: said.size.saturating_sub(1) });
        }
        good = said.size;
        count += 1;
    }
    Ok((count, good))
}

struct LineReader<'a, R> {
    reader: &'a mut R,
    line: u64,
    text: Vec<u8>,
}

impl<R: BufRead> LineReader<'_, R> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, VerifyError> {
        self.text.clear();
        self.line += 1;
        let read = self.reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut self.text)?;
        if read == 0 {
            return Ok(None);
        }
        if self.text.last() != Some(&b'\n') {
            return Err(malformed(self.line, "the line is cut off"));
        }
        serde_json::from_slice(&self.text).map(Some).map_err(|error| malformed(self.line, error.to_string()))
    }
}

fn malformed(line: u64, what: impl Into<String>) -> VerifyError {
    VerifyError::Malformed { line, what: what.into() }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    plain.then(|| hex::decode(text).ok())?
}

/// One closure for lines of several types.
mod erased {
    /// A value that writes itself as JSON, behind a pointer.
    pub trait WriteJson {
        fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()>;
    }
    impl<T: serde::Serialize> WriteJson for T {
        fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
            serde_json::to_writer(out, self).map_err(std::io::Error::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SigningKey;
    use super::*;

    const ENTRIES: u64 = 3_000;

    /// An export with a checkpoint over every entry, as a ledger of years has them; both are made as they are wanted.
    fn export(key: &SigningKey) -> Vec<String> {
        let entries = || {
            (0..ENTRIES).map(|no| RawEntry {
                no: EntryNo(no as i64),
                at: no as i64,
                commit: commitment(b"salt", b"{}"),
                salt: Some(b"salt".to_vec()),
                body: Some(b"{}".to_vec()),
            })
        };
        let mut frontier = TreeFrontier::default();
        let checkpoints = entries().map(move |entry| {
            frontier.push(EntryLeaf { no: entry.no, at: entry.at, commit: entry.commit }.hash());
            key.sign(frontier.size(), frontier.root())
        });
        let mut out = Vec::new();
        write_export(&mut out, key.public(), ENTRIES, entries(), checkpoints).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn thousands_of_checkpoints_are_checked_one_after_another_and_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open_or_create(&dir.path().join("key"), "nightshift").unwrap();
        let good = export(&key);
        let report = verify_export(good.concat().as_bytes(), key.public()).unwrap();
        assert_eq!((report.entries, report.checkpoints, report.signed), (ENTRIES, ENTRIES, ENTRIES));
        // The one over 2,000 entries, and the one after it.
        let at = 1 + ENTRIES as usize + 1_999;
        let mut swapped = good.clone();
        swapped.swap(at, at + 1);
        let refused = verify_export(swapped.concat().as_bytes(), key.public()).unwrap_err();
        assert!(
            matches!(&refused, VerifyError::BadCheckpoint { size: 2_000, what } if what.contains("must come before it")),
            "{refused}"
        );
        let mut wrong = good.clone();
        let other = key.sign(2_000, LeafHash([7; 32]));
        wrong[at] = format!("{}\n", serde_json::to_string(&other).unwrap());
        let refused = verify_export(wrong.concat().as_bytes(), key.public()).unwrap_err();
        assert!(matches!(refused, VerifyError::WrongRoot { after: 1_998, upto: 1_999 }), "{refused}");
        let mut fewer = good;
        fewer.drain(at..);
        assert_eq!(verify_export(fewer.concat().as_bytes(), key.public()).unwrap().signed, 1_999);
    }
}
