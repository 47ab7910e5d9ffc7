//! One line of the GPU driver, parsed: XIDs, SXids, GPUs that fell off the bus, and the place of each GPU.
//!
//! Invariant: a line counts only if it *begins* as the driver's lines do, because other lines quote texts that any user
//! can choose; a line that begins so and cannot be read is `Unread`, never silence.

mod detail;

pub(super) use detail::detail;

/// A line with a meaning, borrowed from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DriverLine<'t> {
    Xid(XidLine<'t>),
    Sxid(SxidLine<'t>),
    /// `NVRM: GPU at PCI:0000:03:00: GPU-455d…`
    Name {
        pci: String,
        uuid: &'t str,
    },
    /// `NVRM: The NVIDIA GPU 0000:18:00.0`: the next lines have its fault.
    About {
        pci: String,
    },
    /// `NVRM: … fallen off the bus …` without an address: the GPU is the one of the last `About`.
    Fallen,
    /// It begins like a fault and cannot be read.
    Unread,
}

/// `NVRM: Xid (PCI:0000:65:00): 79, pid=1234, name=python3, …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct XidLine<'t> {
    pub pci: String,
    pub code: u32,
    pub pid: Option<u32>,
    /// Empty where the driver has none.
    pub process: &'t str,
    /// The text after the code, the process and its name.
    pub rest: &'t str,
}

/// `nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SxidLine<'t> {
    pub switch: &'t str,
    pub pci: String,
    pub code: u32,
    /// `None` for the lines that only add data to an earlier one.
    pub fatal: Option<bool>,
    pub link: Option<u32>,
    pub rest: &'t str,
}

/// Codes are three digits so far; SXids five.
const CODE_MAX: u32 = 99_999;

/// Reads one line; `None` if it is about something else.
pub(super) fn read(line: &str) -> Option<DriverLine<'_>> {
    let line = without_prefix(line);
    if let Some(rest) = line.strip_prefix("nvidia-nvswitch") {
        let (switch, rest) = rest.split_once(':')?;
        let rest = rest.trim_start().strip_prefix("SXid")?;
        return Some(sxid(switch, rest).map_or(DriverLine::Unread, DriverLine::Sxid));
    }
    let rest = line.strip_prefix("NVRM:")?.trim_start();
    if let Some(rest) = rest.strip_prefix("Xid") {
        // `NVRM: Xid` begins a fault; `NVRM: Xidentity` would not.
        return match rest.trim_start().starts_with('(') {
            true => Some(xid(rest).map_or(DriverLine::Unread, DriverLine::Xid)),
            false => rest.starts_with([' ', ':']).then_some(DriverLine::Unread),
        };
    }
    let gone = rest.contains("fallen off the bus") || rest.contains("has been lost");
    if let Some(rest) = rest.strip_prefix("GPU at ") {
        let (place, behind) = split_place(rest)?;
        if gone {
            return Some(DriverLine::Xid(fallen(place, behind)));
        }
        let uuid = behind.trim_start_matches([':', ' ']).trim_end();
        return is_uuid(uuid).then_some(DriverLine::Name { pci: place, uuid });
    }
    for start in ["GPU ", "The NVIDIA GPU "] {
        let Some((place, behind)) = rest.strip_prefix(start).and_then(split_place) else { continue };
        return Some(if gone { DriverLine::Xid(fallen(place, behind)) } else { DriverLine::About { pci: place } });
    }
    gone.then_some(DriverLine::Fallen)
}

/// A PCI address in our spelling, `0000:65:00.0`, from any of the driver's and NVML's; `None` if it is none.
pub(crate) fn pci(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("PCI:").or_else(|| text.strip_prefix("pci:")).unwrap_or(text);
    let mut parts = text.split(':');
    let (domain, bus, slot, more) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    if more.is_some() || !(1..=8).contains(&domain.len()) || bus.len() != 2 {
        return None;
    }
    let (device, function) = slot.split_once('.').unwrap_or((slot, "0"));
    let hex = |digits: &str| {
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (domain, bus, number, function) = (hex(domain)?, hex(bus)?, hex(device)?, hex(function)?);
    let whole = device.len() == 2 && number < 32 && function < 8;
    whole.then(|| format!("{domain:04x}:{bus:02x}:{number:02x}.{function}"))
}

/// The XID that the bare lines stand for.
fn fallen(pci: String, behind: &str) -> XidLine<'_> {
    XidLine { pci, code: 79, pid: None, process: "", rest: behind.trim_start_matches([':', ' ']) }
}

fn xid(text: &str) -> Option<XidLine<'_>> {
    let (place, rest) = bracketed(text)?;
    let (code, mut rest) = code(rest)?;
    let (mut pid, mut process) = (None, "");
    // Old drivers print neither; newer ones one or both, the process perhaps as `'<unknown>'`.
    if let Some(value) = rest.strip_prefix("pid=") {
        let (value, behind) = value.split_once(',').unwrap_or((value, ""));
        pid = value.trim_matches('\'').parse().ok();
        rest = behind.trim_start();
    }
    if let Some(value) = rest.strip_prefix("name=") {
        let (value, behind) = value.split_once(", ").unwrap_or((value.trim_end_matches(','), ""));
        process = if value.contains("<unknown>") { "" } else { value };
        rest = behind.trim_start();
    }
    Some(XidLine { pci: place, code, pid, process, rest: rest.trim_end() })
}

fn sxid<'t>(switch: &'t str, text: &'t str) -> Option<SxidLine<'t>> {
    if switch.is_empty() || !switch.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (place, rest) = bracketed(text)?;
    let (code, rest) = code(rest)?;
    let word = rest.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fatal = match word.as_str() {
        "fatal" | "always-fatal" | "always fatal" => Some(true),
        "non-fatal" | "nonfatal" => Some(false),
        _ => None,
    };
    let link = detail::number_after(rest, "Link ");
    Some(SxidLine { switch, pci: place, code, fatal, link, rest: rest.trim_end() })
}

/// ` (PCI:0000:65:00): 79` → the address, and the text after the colon.
fn bracketed(text: &str) -> Option<(String, &str)> {
    let (place, rest) = text.trim_start().strip_prefix('(')?.split_once(')')?;
    Some((pci(place)?, rest.strip_prefix(':')?.trim_start()))
}

/// `79, pid=…` or `79` alone → the code, and the text after it.
fn code(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let code = text[..digits].parse().ok().filter(|code| (1..=CODE_MAX).contains(code))?;
    let rest = &text[digits..];
    let ends = rest.is_empty() || rest.starts_with([',', ' ', '\t', ';', ':', '.']);
    ends.then(|| (code, rest.trim_start_matches([',', ' ', '\t'])))
}

/// `PCI:0000:03:00: GPU-…` or `0000:29:00.0: …` → the address, and the text after it.
fn split_place(text: &str) -> Option<(String, &str)> {
    let bare = text.strip_prefix("PCI:").unwrap_or(text);
    let end = bare.find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, ':' | '.'))).unwrap_or(bare.len());
    let place = bare[..end].trim_end_matches([':', '.']);
    Some((pci(place)?, &bare[place.len()..]))
}

fn is_uuid(text: &str) -> bool {
    text.strip_prefix("GPU-").is_some_and(|rest| {
        (8..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    })
}

/// A plain file may hold the output of `dmesg`: `<6>[  123.456789] NVRM: …`.
fn without_prefix(line: &str) -> &str {
    let mut line = line.trim_start();
    for (open, close) in [('<', '>'), ('[', ']')] {
        let inner = line.strip_prefix(open).and_then(|rest| rest.split_once(close));
        if let Some((inner, rest)) = inner
            && inner.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ' '))
        {
            line = rest.trim_start();
        }
    }
    line
}

#[cfg(test)]
mod tests;
