//! `nightshift audit`: verify, export, prove and read the ledger.
//!
//! Invariant: verification happens here, with the public key alone; nothing that the engine says is taken on trust.

use super::client::EngineClient;
use super::invocation::{Invocation, TextStyle, clean};
use super::page;
use super::stop::{CliError, CliExitCode};
use crate::api::{
    CheckpointList, EntryList, InclusionProof, LedgerSize, PageQuery, RawEntryAnswer, RawEntryList, RedactionAnswer,
    RedactionRequest,
};
use crate::limits;
use crate::model::{EntryKind, Outcome};
use crate::store::RawEntry;
use crate::store::ledger::{
    Checkpoint, ExportReport, LeafHash, PublicKey, VerifyError, verify_export, verify_inclusion, verify_note,
    write_export,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    what: AuditCommand,
}

#[derive(clap::Subcommand)]
enum AuditCommand {
    /// Recompute the whole tree and check every signature: of the running engine, or of an export
    Verify {
        /// An export to verify instead, offline
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// The public key to trust [default: <data_dir>/signing.pub]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Write the whole ledger to a file that can be verified offline
    Export {
        /// The file; it must not exist yet
        file: PathBuf,
    },
    /// Prove that one entry is in the signed ledger, and show it
    Proof {
        /// The entry's number (12)
        entry: String,
        /// The public key to trust [default: <data_dir>/signing.pub]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Print the public key; store it on another machine
    Key,
    /// List recent entries, oldest first
    Log {
        /// Only entries of this kind, e.g. step_denied
        #[arg(long)]
        kind: Option<String>,
        /// Only of this run (r17)
        #[arg(long)]
        run: Option<String>,
        /// Only of this incident (i3)
        #[arg(long)]
        incident: Option<String>,
        /// Only of runs about this node
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Only of runs of this rule
        #[arg(long, value_name = "NAME")]
        rule: Option<String>,
        /// Only written since then: 2h ago, or a time
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Maximum number
        #[arg(short = 'n', long, default_value_t = limits::LIST_ROWS, value_parser = super::invocation::rows)]
        limit: usize,
    },
    /// Remove the body of an entry permanently; its hash and place stay
    Redact {
        /// The entry's number (12)
        entry: String,
        /// Reason; recorded in the ledger
        #[arg(short, long, visible_alias = "reason")]
        why: String,
        /// Skip the confirmation; for scripts
        #[arg(short, long)]
        yes: bool,
    },
}

pub(super) fn run(args: &AuditArgs, invocation: &Invocation) -> Result<(), CliError> {
    match &args.what {
        AuditCommand::Verify { export: Some(file), key } => verify_file(invocation, file, key.as_deref()),
        AuditCommand::Verify { export: None, key } => verify_engine(invocation, key.as_deref()),
        AuditCommand::Export { file } => export(invocation, file),
        AuditCommand::Proof { entry, key } => proof(invocation, entry, key.as_deref()),
        AuditCommand::Key => {
            let key = public_key(invocation, None)?;
            if invocation.json() {
                invocation.print_json(&json!({ "public_key": key.to_string() }))
            } else {
                invocation.line(&key.to_string())
            }
        }
        AuditCommand::Log { kind, run, incident, node, rule, since, limit } => {
            let lower = |id: &Option<String>| id.as_ref().map(|id| id.to_ascii_lowercase());
            let (run, incident) = (lower(run), lower(incident));
            let picked = [
                ("kind", kind),
                ("run", &run),
                ("incident", &incident),
                ("node", node),
                ("rule", rule),
                ("since", since),
            ];
            let mut query = vec![("limit", limit.to_string())];
            query.extend(picked.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
            log(invocation, &query)
        }
        AuditCommand::Redact { entry, why, yes } => redact(invocation, entry, why, *yes),
    }
}

fn verify_file(invocation: &Invocation, file: &Path, key: Option<&Path>) -> Result<(), CliError> {
    let key = public_key(invocation, key)?;
    let opened = File::open(file).map_err(|error| {
        CliError::failure(format!("{}: {error}", file.display()), "make one with `nightshift audit export`")
    })?;
    verdict(invocation, &file.display().to_string(), verify_export(BufReader::new(opened), &key))
}

/// The same check over the engine's export, piped so that no size matters.
fn verify_engine(invocation: &Invocation, key: Option<&Path>) -> Result<(), CliError> {
    let key = public_key(invocation, key)?;
    let client = EngineClient::new(invocation)?;
    let (reader, writer) = std::io::pipe().map_err(|error| CliError::failure(format!("pipe: {error}"), ""))?;
    let verified = std::thread::scope(|scope| {
        let verifier = scope.spawn(|| verify_export(BufReader::new(reader), &key));
        let written = write_all(&client, &key, BufWriter::new(writer));
        let verified = verifier.join().map_err(|_| CliError::failure("the verifier itself failed", "report this"))?;
        match (verified, written) {
            // A verifier that has seen enough closes the pipe: its verdict is the better one.
            (Err(error), Err(_))
                if !matches!(error, VerifyError::Incomplete { .. } | VerifyError::Malformed { .. }) =>
            {
                Ok(Err(error))
            }
            (_, Err(stop)) => Err(stop),
            (verified, Ok(())) => Ok(verified),
        }
    })?;
    verdict(invocation, "the ledger", verified)
}

fn export(invocation: &Invocation, file: &Path) -> Result<(), CliError> {
    let key = public_key(invocation, None)?;
    let client = EngineClient::new(invocation)?;
    let wrong = |error: std::io::Error| {
        CliError::failure(format!("{}: {error}", file.display()), "name a file that does not exist yet")
    };
    let out = File::create_new(file).map_err(wrong)?;
    if let Err(stop) = write_all(&client, &key, BufWriter::new(&out)) {
        // Half an export is worse than none.
        let _ = std::fs::remove_file(file);
        return Err(stop);
    }
    out.sync_all().map_err(wrong)?;
    invocation
        .say(&format!("verify it anywhere: nightshift audit verify --export {} --key <signing.pub>", file.display()));
    invocation.line(&file.display().to_string())
}

/// Fetches everything, page by page, and writes it as an export.
fn write_all(client: &EngineClient, key: &PublicKey, mut out: impl Write) -> Result<(), CliError> {
    // Entries go on arriving: the export ends where it began to be made.
    let size = client.get::<LedgerSize>("status", &())?.read()?.entries;
    let mut pages = EntryPages { client, next: 0, size, page: Vec::new().into_iter(), failed: None };
    let mut checkpoints = CheckpointPages { client, after: 0, size, page: Vec::new().into_iter(), failed: None };
    let written = write_export(&mut out, key, size, &mut pages, &mut checkpoints).and_then(|()| out.flush());
    if let Some(stop) = pages.failed.or(checkpoints.failed) {
        return Err(stop);
    }
    written.map_err(|error| CliError::failure(format!("cannot write: {error}"), ""))
}

/// Checkpoints over at most so many entries, in the order of their size, fetched as they are wanted: a page is all that is
/// in memory.
struct CheckpointPages<'a> {
    client: &'a EngineClient,
    after: u64,
    size: u64,
    page: std::vec::IntoIter<Checkpoint>,
    failed: Option<CliError>,
}

impl CheckpointPages<'_> {
    fn fetch(&self) -> Result<Vec<Checkpoint>, CliError> {
        let query = PageQuery { after: Some(self.after.cast_signed()), limit: Some(limits::READ_LIMIT) };
        let mut page = self.client.get::<CheckpointList>("audit/checkpoints", &query)?.read()?.checkpoints;
        // An engine of before returns all of them at once, whatever the page.
        page.retain(|checkpoint| checkpoint.size > self.after && checkpoint.size <= self.size);
        page.sort_by_key(|checkpoint| checkpoint.size);
        Ok(page)
    }
}

impl Iterator for CheckpointPages<'_> {
    type Item = Checkpoint;

    fn next(&mut self) -> Option<Checkpoint> {
        if self.page.len() == 0 && self.failed.is_none() {
            match self.fetch() {
                Ok(page) => self.page = page.into_iter(),
                Err(stop) => self.failed = Some(stop),
            }
        }
        let checkpoint = self.page.next()?;
        self.after = checkpoint.size;
        Some(checkpoint)
    }
}

/// Raw entries in order, fetched as they are wanted.
struct EntryPages<'a> {
    client: &'a EngineClient,
    next: u64,
    size: u64,
    page: std::vec::IntoIter<RawEntry>,
    failed: Option<CliError>,
}

impl Iterator for EntryPages<'_> {
    type Item = RawEntry;

    fn next(&mut self) -> Option<RawEntry> {
        if self.next >= self.size || self.failed.is_some() {
            return None;
        }
        if self.page.len() == 0 {
            match fetch(self.client, self.next) {
                Ok(page) => self.page = page.into_iter(),
                Err(stop) => self.failed = Some(stop),
            }
        }
        self.next += 1;
        self.page.next()
    }
}

fn fetch(client: &EngineClient, from: u64) -> Result<Vec<RawEntry>, CliError> {
    let query = PageQuery { after: from.checked_sub(1).map(u64::cast_signed), limit: Some(limits::READ_LIMIT) };
    let raw = client.get::<RawEntryList>("audit/raw", &query)?.read()?.raw;
    raw.into_iter().map(raw_entry).collect()
}

fn raw_entry(raw: RawEntryAnswer) -> Result<RawEntry, CliError> {
    let bytes = |text: Option<String>| text.map(|text| STANDARD.decode(text)).transpose();
    let garbled = |_| CliError::failure(format!("entry {} came garbled", raw.no), "try again");
    let commit = unhex(&raw.commit)?;
    let (salt, body) = (bytes(raw.salt).map_err(garbled)?, bytes(raw.body).map_err(garbled)?);
    Ok(RawEntry { no: raw.no, at: raw.at, commit, salt, body })
}

fn verdict(invocation: &Invocation, what: &str, verified: Result<ExportReport, VerifyError>) -> Result<(), CliError> {
    match verified {
        Ok(report) => {
            let unsigned = report.entries.saturating_sub(report.signed);
            if invocation.json() {
                return invocation.print_json(&json!({
                    "ok": true, "entries": report.entries, "signed": report.signed, "unsigned": unsigned,
                    "checkpoints": report.checkpoints, "redacted": report.redacted, "root": report.root.to_string(),
                }));
            }
            let word = match unsigned {
                0 => invocation.paint(TextStyle::Good, "good"),
                _ => invocation.paint(TextStyle::Odd, "good so far"),
            };
            invocation.line(&format!(
                "{word}  {what}: {} entries, none altered; {} signed by {}, {} redacted",
                report.entries,
                report.signed,
                super::page::count(report.checkpoints as usize, "checkpoint"),
                report.redacted
            ))?;
            if unsigned > 0 {
                let came = if unsigned == 1 { "1 entry".to_owned() } else { format!("{unsigned} entries") };
                let every = limits::CHECKPOINT_EVERY.as_secs();
                invocation.line(&format!(
                    "{came} after the last checkpoint: no signature covers them yet. One is signed every {every} s and at every \
                     orderly end; if these are older than that, a checkpoint is missing and the end may have been cut off"
                ))?;
            }
            invocation.line(&format!("root {}", report.root))
        }
        Err(VerifyError::Unsigned) => {
            let every = limits::CHECKPOINT_EVERY.as_secs();
            Err(CliError::new(
                CliExitCode::Partial,
                format!("{what} has no signed checkpoint yet, so it cannot be verified"),
                format!("one is signed every {every} s and at every orderly end: try again then"),
            ))
        }
        Err(error) => {
            if invocation.json() {
                invocation.print_json(&json!({ "ok": false, "error": error.to_string() }))?;
                return Err(CliError::said(CliExitCode::Failure));
            }
            Err(CliError::failure(
                format!("{what} does not verify: {error}"),
                "do not change the store, compare it with an earlier export, and find out which users had access",
            ))
        }
    }
}

/// One entry's path to a signed root, recomputed here.
fn proof(invocation: &Invocation, entry: &str, key: Option<&Path>) -> Result<(), CliError> {
    let key = public_key(invocation, key)?;
    let number = entry.trim_start_matches('#');
    let answer = EngineClient::new(invocation)?.get::<InclusionProof>(&format!("audit/proof/{number}"), &())?;
    let shown = answer.raw.clone();
    let proof = answer.read()?;
    let broken = |what: &str| {
        CliError::failure(
            format!("the proof of {} does not hold: {what}", proof.entry),
            "keep the store as it is and run `nightshift audit verify`",
        )
    };
    let said = verify_note(&proof.checkpoint.note, &key).map_err(|error| broken(&error.to_string()))?;
    let path: Vec<LeafHash> = proof.path.iter().map(|hash| unhex(hash)).collect::<Result<_, _>>()?;
    let leaf = unhex(&proof.leaf)?;
    let index = u64::try_from(proof.entry.0).unwrap_or(u64::MAX);
    if !verify_inclusion(leaf, index, said.size, &path, said.root) {
        return Err(broken("the path does not lead to the signed root"));
    }
    let raw = proof.raw.map(raw_entry).transpose()?;
    if let Some(raw) = &raw {
        let same = crate::store::ledger::EntryLeaf { no: raw.no, at: raw.at, commit: raw.commit }.hash() == leaf;
        let body = match (&raw.salt, &raw.body) {
            (Some(salt), Some(body)) => crate::store::ledger::commitment(salt, body) == raw.commit,
            _ => true,
        };
        if !same || !body {
            return Err(broken("the entry that was shown is not the one that was signed"));
        }
    }
    if invocation.json() {
        return invocation.print_json(&shown);
    }
    invocation.line(&format!(
        "{} {} is entry {} of {} that {} signed",
        invocation.paint(TextStyle::Good, "good"),
        proof.entry,
        index + 1,
        said.size,
        said.origin
    ))?;
    match raw.and_then(|raw| raw.body) {
        Some(body) => invocation.line(&clean(&String::from_utf8_lossy(&body), 100_000)),
        None => invocation.line("its body was redacted; its place and hash are still proven"),
    }
}

fn log(invocation: &Invocation, query: &[(&str, String)]) -> Result<(), CliError> {
    let answer = EngineClient::new(invocation)?.get::<EntryList>("entries", &query)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let EntryList { mut entries, story, .. } = answer.read()?;
    entries.sort_by_key(|entry| entry.no);
    let rows = entries.iter().map(|entry| {
        // Not every entry has a line in the timeline: of a read there is its call, and its return value.
        let text = story.iter().find(|line| line.no == entry.no).map(|line| line.text.clone());
        let text = text.unwrap_or_else(|| bare(&entry.kind));
        [
            entry.no.to_string(),
            invocation.format(entry.at, "%Y-%m-%d %H:%M:%S"),
            entry.kind.name().to_owned(),
            page::text(&entry.actor.0),
            entry
                .about
                .run
                .map(|id| id.to_string())
                .or(entry.about.incident.map(|id| id.to_string()))
                .unwrap_or_default(),
            page::text(&text),
        ]
    });
    let at = format!("AT ({})", invocation.zone());
    invocation.table(["NO", &at, "KIND", "WHO", "ABOUT", "WHAT"], rows.collect())
}

/// An entry that is no line of a story, in a few words.
fn bare(kind: &EntryKind) -> String {
    match kind {
        EntryKind::StepBegun { call, .. } => call.to_string(),
        EntryKind::StepEnded { outcome: Outcome::Ok(value), .. } => format!("→ {value}"),
        EntryKind::StepEnded { outcome: Outcome::Failed(failure), .. } => {
            format!("→ failed: {} ({})", failure.message, failure.kind.name())
        }
        _ => String::new(),
    }
}

fn redact(invocation: &Invocation, entry: &str, why: &str, yes: bool) -> Result<(), CliError> {
    let number = entry.trim_start_matches('#');
    if !yes {
        if !invocation.can_ask() {
            return Err(CliError::usage(
                "a redaction cannot be undone, and there is no terminal to confirm it on",
                "add --yes",
            ));
        }
        let answer = invocation
            .ask(&format!("The body of #{} is removed permanently. Type its number again:", page::text(number)))?;
        if answer.trim_start_matches('#') != number {
            return Err(CliError::failure("the number differs: no entry was redacted", ""));
        }
    }
    let wish = RedactionRequest { entry: number.to_owned(), why: why.to_owned() };
    let answer = EngineClient::new(invocation)?.post::<RedactionAnswer>("audit/redact", &wish)?;
    if invocation.json() {
        invocation.print_json(&answer.raw)
    } else {
        match answer.read()?.redacted.is_none() {
            true => invocation
                .line(&format!("#{}: redaction requested; a second admin must run the same", page::text(number))),
            false => invocation.line(&format!("#{} redacted", page::text(number))),
        }
    }
}

fn public_key(invocation: &Invocation, file: Option<&Path>) -> Result<PublicKey, CliError> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => invocation.config()?.0.public_key_path(),
    };
    let hint = "name the file with --key; `nightshift audit key` on the engine's machine prints it";
    let text = std::fs::read_to_string(&path)
        .map_err(|error| CliError::failure(format!("public key {}: {error}", path.display()), hint))?;
    text.trim().parse().map_err(|error| CliError::failure(format!("public key {}: {error}", path.display()), hint))
}

fn unhex(text: &str) -> Result<LeafHash, CliError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| CliError::failure(format!("`{}` is not a hash", clean(text, 80)), "try again"))?;
    Ok(LeafHash(bytes))
}
