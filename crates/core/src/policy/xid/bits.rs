//! Codes whose number is ambiguous: NVLink 5 (144 to 150) by block, sub-code and status; XID 74 by its registers.
//!
//! Invariant: of several rows that fit, the gravest counts; if none fits, the table's own entry for the code does.

use super::number;
use super::table::{BitRow, XidRemedy, XidTable};
use crate::model::{Labels, Severity};

impl XidTable {
    pub(super) fn by_bits(&self, code: u32, labels: &Labels) -> Option<(XidRemedy, Severity)> {
        let rows = self.bits.iter().filter(|row| row.xid == code);
        let fitting = rows.filter(|row| match row.unit.is_empty() {
            true => fits_registers(row, labels),
            false => fits_link(row, labels),
        });
        fitting.map(|row| (row.action, row.severity)).max()
    }
}

fn fits_link(row: &BitRow, labels: &Labels) -> bool {
    let status = || u32::from_str_radix(labels.get("status").strip_prefix("0x")?, 16).ok();
    let is = |status: u32, wanted: &u32| if row.exactly { status == *wanted } else { status & wanted != 0 };
    row.unit.iter().any(|unit| unit == labels.get("unit"))
        && (row.subcode.is_empty() || number(labels.get("subcode")).is_some_and(|code| row.subcode.contains(&code)))
        && (row.status.is_empty() || status().is_some_and(|status| row.status.iter().any(|wanted| is(status, wanted))))
}

/// `0x0 0x0 0x10000 …`: seven registers.
fn fits_registers(row: &BitRow, labels: &Labels) -> bool {
    let word = labels.get("registers").split(' ').nth(row.register.wrapping_sub(1));
    let word = word.and_then(|word| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()).unwrap_or(0);
    row.bits.iter().any(|bit| word.checked_shr(*bit).unwrap_or(0) & 1 == 1)
}
