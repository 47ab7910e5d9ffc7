//! The table in its file, and a site's own file laid over it.
//!
//! Invariant: an unknown key is refused; a code that the shipped table has may be given in part, a new one is given whole.

use crate::limits;
use crate::model::Severity;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A remedy, from none to a vendor's support case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum XidRemedy {
    /// Not even notified: it follows another fault, or is good news.
    None,
    Tell,
    /// Restart the workload on the GPU; the GPU is healthy.
    RestartApp,
    /// Empty the node of GPU pods; users look.
    Drain,
    /// Empty the node of GPU pods and reset the GPU.
    Reset,
    Reboot,
    /// Hands or a vendor: mechanics, firmware, replacement.
    Support,
}

impl XidRemedy {
    /// The remedy's name in the table and in labels.
    pub fn name(self) -> &'static str {
        self.into_str()
    }
}

/// The component that is most often the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum XidCause {
    App,
    Driver,
    Gpu,
    Link,
    Switch,
    Machine,
    Nobody,
    Unknown,
}

impl XidCause {
    /// The cause's name in the table and in labels.
    pub fn name(self) -> &'static str {
        self.into_str()
    }
}

/// One code.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XidEntry {
    #[serde(default)]
    pub name: String,
    /// One line for users.
    #[serde(default)]
    pub about: String,
    pub severity: Severity,
    pub action: XidRemedy,
    #[serde(default = "unknown")]
    pub blames: XidCause,
}

fn unknown() -> XidCause {
    XidCause::Unknown
}

/// Bits of a line that decide, for the codes where the number alone does not.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitRow {
    pub xid: u32,
    /// NVLink 5: the reporting block, by any of its names.
    #[serde(default)]
    pub unit: Vec<String>,
    /// NVLink 5: bits 20 to 25 of the first word; empty: whatever they are.
    #[serde(default)]
    pub subcode: Vec<u32>,
    /// NVLink 5: the second word; empty: any. `exactly` decides how it is compared.
    #[serde(default)]
    pub status: Vec<u32>,
    /// The status is a number, not a set of bits.
    #[serde(default)]
    pub exactly: bool,
    /// XID 74: which of the seven registers, from 1, and which of its bits.
    #[serde(default)]
    pub register: usize,
    #[serde(default)]
    pub bits: Vec<u32>,
    pub action: XidRemedy,
    pub severity: Severity,
}

/// The whole policy.
#[derive(Debug, Clone, PartialEq)]
pub struct XidTable {
    pub(super) xid: BTreeMap<u32, XidEntry>,
    pub(super) sxid: BTreeMap<u32, XidEntry>,
    pub(super) sxid_fatal: XidEntry,
    pub(super) sxid_other: XidEntry,
    pub(super) unknown: XidEntry,
    /// Requests of the driver: XID 154, field 230.
    pub(super) wishes: BTreeMap<String, XidEntry>,
    pub(super) bits: Vec<BitRow>,
}

/// Why a file of the table was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XidTableError {
    #[error("{0}")]
    Text(String),
    #[error("{code}: the shipped table does not have it, so `severity` and `action` must both be given")]
    Incomplete { code: String },
    #[error(
        "recovery `{0}`: the driver's recovery actions are none, gpu-reset, node-reboot, drain-p2p, drain-and-reset and unknown"
    )]
    Wish(String),
    #[error("a row of `bits` for XID {0} names neither `unit` nor `register` with `bits`: it would fit everything")]
    Row(u32),
}

/// A file: the shipped one, or a site's own with only its changes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct XidTableFile {
    xid: BTreeMap<u32, XidEntryPatch>,
    sxid: BTreeMap<u32, XidEntryPatch>,
    sxid_fatal: XidEntryPatch,
    sxid_other: XidEntryPatch,
    unknown: XidEntryPatch,
    recovery: BTreeMap<String, XidEntryPatch>,
    bits: Option<Vec<BitRow>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct XidEntryPatch {
    name: Option<String>,
    about: Option<String>,
    severity: Option<Severity>,
    action: Option<XidRemedy>,
    blames: Option<XidCause>,
}

const WISHES: [&str; 6] = ["none", "gpu-reset", "node-reboot", "drain-p2p", "drain-and-reset", "unknown"];

static SHIPPED: LazyLock<XidTable> = LazyLock::new(|| {
    let text = include_str!("../../../../../rules/xid.yaml");
    XidTable::blank().overlaid(text).expect("rules/xid.yaml is compiled in, and a test reads it")
});

impl Default for XidTable {
    /// The table that is compiled in: an engine without the file has a policy all the same.
    fn default() -> XidTable {
        SHIPPED.clone()
    }
}

impl XidTable {
    /// This table with a file laid over it: each code and field of the file replaces the earlier one.
    ///
    /// # Errors
    ///
    /// Fails when the text is not such a file, when a new code lacks `severity` or `action`, or when a recovery action
    /// or a row of bits is unknown.
    pub fn overlaid(&self, text: &str) -> Result<XidTable, XidTableError> {
        let options = serde_saphyr::options! {
            // A table is written out: an anchor that is replayed a million times is not one.
            budget: serde_saphyr::budget! { max_nodes: limits::RULE_FILE_NODES, max_depth: limits::RULE_FILE_DEPTH },
        };
        let document: XidTableFile = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| XidTableError::Text(error.to_string()))?;
        let mut table = self.clone();
        for (code, part) in document.xid {
            part.lay(&mut table.xid, code, &format!("xid {code}"))?;
        }
        for (code, part) in document.sxid {
            part.lay(&mut table.sxid, code, &format!("sxid {code}"))?;
        }
        for (wish, part) in document.recovery {
            if !WISHES.contains(&wish.as_str()) {
                return Err(XidTableError::Wish(wish));
            }
            let named = format!("recovery {wish}");
            part.lay(&mut table.wishes, wish, &named)?;
        }
        document.sxid_fatal.over(&mut table.sxid_fatal);
        document.sxid_other.over(&mut table.sxid_other);
        document.unknown.over(&mut table.unknown);
        if let Some(rows) = document.bits {
            let fits_all = |row: &&BitRow| row.unit.is_empty() && (row.register == 0 || row.bits.is_empty());
            if let Some(row) = rows.iter().find(fits_all) {
                return Err(XidTableError::Row(row.xid));
            }
            table.bits = rows;
        }
        Ok(table)
    }

    /// The entry of an XID, for pages and tests.
    pub fn xid(&self, code: u32) -> Option<&XidEntry> {
        self.xid.get(&code)
    }

    fn blank() -> XidTable {
        let unknown = XidEntry {
            name: String::new(),
            about: String::new(),
            severity: Severity::Warning,
            action: XidRemedy::Tell,
            blames: XidCause::Unknown,
        };
        XidTable {
            xid: BTreeMap::new(),
            sxid: BTreeMap::new(),
            sxid_fatal: unknown.clone(),
            sxid_other: unknown.clone(),
            unknown,
            wishes: BTreeMap::new(),
            bits: Vec::new(),
        }
    }
}

impl XidEntryPatch {
    fn lay<K: Ord>(self, map: &mut BTreeMap<K, XidEntry>, key: K, named: &str) -> Result<(), XidTableError> {
        if let Some(entry) = map.get_mut(&key) {
            self.over(entry);
            return Ok(());
        }
        let (Some(severity), Some(action)) = (self.severity, self.action) else {
            return Err(XidTableError::Incomplete { code: named.to_owned() });
        };
        let (name, about) = (self.name.unwrap_or_default(), self.about.unwrap_or_default());
        map.insert(key, XidEntry { name, about, severity, action, blames: self.blames.unwrap_or(XidCause::Unknown) });
        Ok(())
    }

    fn over(self, entry: &mut XidEntry) {
        entry.name = self.name.unwrap_or_else(|| std::mem::take(&mut entry.name));
        entry.about = self.about.unwrap_or_else(|| std::mem::take(&mut entry.about));
        entry.severity = self.severity.unwrap_or(entry.severity);
        entry.action = self.action.unwrap_or(entry.action);
        entry.blames = self.blames.unwrap_or(entry.blames);
    }
}
