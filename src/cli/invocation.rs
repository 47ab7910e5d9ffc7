//! One invocation: the global options, the configuration they lead to, and how to speak on stdout and stderr.
//!
//! Invariant: colours appear on a terminal only, unless asked for; control characters from outside never reach one.

use super::stop::CliError;
use crate::clock::{Clock, RealClock};
use crate::config::{Config, ConfigOrigin};
use crate::model::Time;
use clap::{Args, ValueEnum};
use comfy_table::Table;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct GlobalArgs {
    /// Configuration file [env: NIGHTSHIFT_CONFIG] [default: ./nightshift.yaml, then /etc/nightshift/nightshift.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub output: OutputFormat,
    /// Show times in UTC instead of the zone of this machine (`TZ`)
    #[arg(long, global = true)]
    pub utc: bool,
    /// Colors; `auto` means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: ColorMode,
    /// Engine address [default: from the configuration]
    #[arg(long, global = true, value_name = "URL", env = "NIGHTSHIFT_SERVER")]
    pub server: Option<String>,
    /// File with the token to use [default: NIGHTSHIFT_TOKEN, else <data_dir>/token]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    Table,
    /// A table whose columns are not cut to the terminal
    Wide,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorMode {
    Auto,
    Always,
    Never,
}

/// The meaning of a piece of text; the color follows.
#[derive(Clone, Copy)]
pub(super) enum TextStyle {
    Strong,
    Dim,
    Good,
    Odd,
    Bad,
}

pub(super) struct Invocation {
    pub global: GlobalArgs,
    pub now: Time,
    zone: TimeZone,
    stdout_colour: bool,
    stderr_colour: bool,
}

impl Invocation {
    /// The options, with the colors and the zone that follow from them and from the environment.
    pub fn new(global: GlobalArgs) -> Invocation {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = |terminal: bool| match global.color {
            ColorMode::Always => true,
            ColorMode::Never => false,
            ColorMode::Auto => terminal && !plain,
        };
        let (stdout_colour, stderr_colour) = (colour(io::stdout().is_terminal()), colour(io::stderr().is_terminal()));
        let zone = if global.utc { TimeZone::UTC } else { TimeZone::try_system().unwrap_or(TimeZone::UTC) };
        Invocation { global, now: RealClock.now(), zone, stdout_colour, stderr_colour }
    }

    /// Whether the output is JSON.
    pub fn json(&self) -> bool {
        self.global.output == OutputFormat::Json
    }

    /// Whether stdout gets colors.
    pub fn colour(&self) -> bool {
        self.stdout_colour
    }

    /// The configuration, and where it was found.
    ///
    /// # Errors
    ///
    /// Fails when the configuration cannot be read, does not parse, or breaks a rule.
    pub fn config(&self) -> Result<(Config, ConfigOrigin), CliError> {
        let found = Config::find(self.global.config.as_deref());
        match Config::load_found(&found) {
            Ok(config) => Ok((config, found)),
            Err(error) => Err(CliError::usage(error, "")),
        }
    }

    /// A line of data.
    ///
    /// # Errors
    ///
    /// Fails when stdout cannot be written; a reader that went away ends the command with success.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        self.print(&format!("{text}\n"))
    }

    /// Data as it stands. A reader that went away (`| head`) is no failure of ours.
    ///
    /// # Errors
    ///
    /// Fails when stdout cannot be written; a reader that went away ends the command with success.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(CliError::said(super::stop::CliExitCode::Ok))
            }
            Err(error) => Err(CliError::failure(format!("stdout: {error}"), "")),
        }
    }

    /// Data as JSON, with the same keys always.
    ///
    /// # Errors
    ///
    /// Fails when the value cannot be written as JSON, and as [`Invocation::print`] does.
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CliError::failure(format!("cannot print as JSON: {error}"), ""))?;
        self.line(&text)
    }

    /// A table without borders, as kubectl prints them; on a terminal no wider than it, unless `-o wide`.
    ///
    /// # Errors
    ///
    /// Fails as [`Invocation::print`] does.
    pub fn table<const N: usize>(&self, head: [&str; N], rows: Vec<[String; N]>) -> Result<(), CliError> {
        let mut table = Table::new();
        let width = table.width().filter(|_| self.global.output != OutputFormat::Wide && io::stdout().is_terminal());
        let rows = match width {
            Some(width) => fit(head, rows, usize::from(width)),
            None => rows,
        };
        table.load_style(comfy_table::presets::NOTHING).force_no_tty();
        table.set_header(head.map(|name| self.paint(TextStyle::Dim, name)));
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        self.line(&table.trim_fmt())
    }

    /// Something that is no data: progress, hints, warnings.
    pub fn say(&self, text: &str) {
        // Nothing can be done about a stderr that is gone.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A warning on stderr.
    pub fn warn(&self, text: &str) {
        self.say(&format!("{} {text}", self.on_stderr(TextStyle::Odd, "warning:")));
    }

    /// The text in a color of stdout, where it has colors.
    pub fn paint(&self, paint: TextStyle, text: &str) -> String {
        painted(self.stdout_colour, paint, text)
    }

    /// The text in a color of stderr, where it has colors.
    pub fn on_stderr(&self, paint: TextStyle, text: &str) -> String {
        painted(self.stderr_colour, paint, text)
    }

    /// A moment with its zone: UTC, or where the person is (`TZ`, else the machine's zone) unless `--utc` says otherwise.
    pub fn when(&self, at: Time) -> String {
        self.format(at, WITH_DATE)
    }

    /// `02:14:07 UTC` of today; another day has its date, too.
    pub fn soon(&self, at: Time) -> String {
        self.format(at, soon(&self.zone, self.now, at))
    }

    /// The same in another form; a form that does not show the zone needs a heading that does.
    pub fn format(&self, at: Time, form: &str) -> String {
        at.to_zoned(self.zone.clone()).strftime(form).to_string()
    }

    /// The name of the zone at this moment, for headings: `UTC`, `CET`.
    pub fn zone(&self) -> String {
        self.format(self.now, "%Z")
    }

    /// How long ago, as a person would say it.
    pub fn age(&self, then: Time) -> String {
        age(self.now, then)
    }

    /// Whether a person can be asked.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks before something begins that others held back, or that cannot be taken back. Without a terminal, or where the
    /// answer is to be JSON, it is refused unless `--yes` was given, as `gh` does.
    ///
    /// # Errors
    ///
    /// Fails when the answer is no, or there is no terminal and no `--yes`.
    pub fn confirm(&self, yes: bool, what: &str) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if self.json() || !self.can_ask() {
            let error = format!("this would {what}, and there is no terminal to confirm it on: no action taken");
            return Err(CliError::usage(error, "to skip the confirmation: add --yes"));
        }
        let answer = self.ask(&format!("Really {what}? [y/N]"))?;
        if matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(CliError::failure("not confirmed: no action taken", ""))
    }

    /// Prompts the user; returns the answer without the newline.
    ///
    /// # Errors
    ///
    /// Fails when the terminal cannot be written or read.
    pub fn ask(&self, question: &str) -> Result<String, CliError> {
        let wrong = |error| {
            CliError::failure(format!("cannot read the confirmation: {error}"), "add --yes to skip the confirmation")
        };
        write!(io::stderr(), "{question} ").and_then(|()| io::stderr().flush()).map_err(wrong)?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(wrong)?;
        Ok(answer.trim().to_owned())
    }
}

/// Blanks between two columns.
const GAP: usize = 3;
/// No column is cut to less.
const NARROWEST: usize = 8;

/// Cuts the widest columns until the table is no wider than so many characters. Colored cells are short, and stay.
fn fit<const N: usize>(head: [&str; N], rows: Vec<[String; N]>, width: usize) -> Vec<[String; N]> {
    let mut widths = head.map(|name| name.chars().count());
    for row in &rows {
        for (wide, cell) in widths.iter_mut().zip(row) {
            *wide = (*wide).max(shown(cell));
        }
    }
    let gaps = GAP * N;
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().max() else { break };
        if *widest <= NARROWEST {
            break;
        }
        *widest -= 1;
    }
    let cut = |(cell, most): (String, usize)| match shown(&cell) > most && !cell.contains('\x1b') {
        true => clean(&cell, most),
        false => cell,
    };
    let cut_row = |row: [String; N]| {
        let mut at = 0;
        row.map(|cell| {
            at += 1;
            cut((cell, widths[at - 1]))
        })
    };
    rows.into_iter().map(cut_row).collect()
}

/// Characters that a cell takes on the screen.
fn shown(cell: &str) -> usize {
    let mut inside = false;
    let visible = cell.chars().filter(|c| {
        let painting = inside || *c == '\x1b';
        inside = painting && *c != 'm';
        !painting
    });
    visible.count()
}

fn painted(on: bool, paint: TextStyle, text: &str) -> String {
    if !on || text.is_empty() {
        return text.to_owned();
    }
    let code = match paint {
        TextStyle::Strong => "1",
        TextStyle::Dim => "2",
        TextStyle::Good => "32",
        TextStyle::Odd => "33",
        TextStyle::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// How many rows a list has at most: none at all would look like nothing there.
pub(super) fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("write a whole number from 1 to {}", crate::limits::READ_LIMIT)),
        Ok(rows) => Ok(rows),
    }
}

/// The form of a moment: without its date where that is today's in this zone.
fn soon(zone: &TimeZone, now: Time, at: Time) -> &'static str {
    let day = |at: Time| at.to_zoned(zone.clone()).date();
    if day(at) == day(now) { "%H:%M:%S %Z" } else { WITH_DATE }
}

const WITH_DATE: &str = "%Y-%m-%d %H:%M %Z";

/// The largest unit that is not zero, two of them below a day: `45s`, `12m`, `3h20m`, `5d`.
fn age(now: Time, then: Time) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Text from outside as it may be shown: no control characters, no invisible reordering, and not endless.
pub(super) fn clean(text: &str, most: usize) -> String {
    let shown = |c: char| match c {
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => ' ',
        c => c,
    };
    let mut chars = text.chars();
    let mut kept: String = chars.by_ref().take(most).map(shown).collect();
    if chars.next().is_some() {
        kept.pop();
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_said_as_people_say_it() {
        let now = Time::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| age(now, Time::from_second(1_000_000 - seconds).unwrap());
        assert_eq!([ago(-5), ago(59), ago(61), ago(3_660), ago(90_000)], ["0s", "59s", "1m", "1h01m", "1d"]);
    }

    #[test]
    fn a_moment_of_another_day_has_its_date() {
        let now: Time = "2026-11-30T23:50:00Z".parse().unwrap();
        let in_minutes = |minutes: i64| Time::from_second(now.as_second() + 60 * minutes).unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(soon(&TimeZone::UTC, now, in_minutes(5)), "%H:%M:%S %Z");
        assert_eq!(soon(&TimeZone::UTC, now, in_minutes(15)), WITH_DATE);
        assert_eq!(soon(&berlin, now, in_minutes(15)), "%H:%M:%S %Z", "it is past midnight there already");
    }

    #[test]
    fn a_table_is_cut_to_the_terminal_in_its_widest_columns_alone() {
        let rows = vec![
            ["i3".to_owned(), "x".repeat(60), "\x1b[31mcritical\x1b[0m".to_owned()],
            ["i4".to_owned(), "short".to_owned(), "info".to_owned()],
        ];
        let cut = fit(["ID", "TITLE", "SEVERITY"], rows.clone(), 50);
        let wide: usize = cut[0].iter().map(|cell| shown(cell)).sum::<usize>() + 3 * GAP;
        assert_eq!(wide, 50);
        assert!(cut[0][1].ends_with('…') && cut[0][0] == "i3" && cut[0][2] == rows[0][2]);
        assert_eq!(cut[1], rows[1]);
        assert_eq!(fit(["ID", "TITLE", "SEVERITY"], rows.clone(), 200), rows);
        assert_eq!(shown(&fit(["A", "B", "C"], rows, 1)[0][1]), NARROWEST);
    }

    #[test]
    fn text_from_outside_cannot_drive_a_terminal() {
        assert_eq!(clean("a\x1b[31mb\n\u{202e}c", 80), "a [31mb \u{fffd}c");
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("abcd", 4), "abcd");
    }
}
