//! Schedules: crontab lines in the usual form, on the wall clock of a time zone.
//!
//! Invariant: a tick falls on a wall-clock time that the line names; one in the spring gap moves behind it, one in the
//! autumn fold happens once, and a line that never comes true is refused when it is read.

use crate::model::{Schedule, Time};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::str::FromStr;

/// The ticks of a schedule.
#[derive(Debug, Clone)]
pub struct CronSchedule {
    /// One, or two that are joined: crontab's "this day of the month, or that day of the week".
    lines: Vec<cron::Schedule>,
    zone: TimeZone,
}

/// Reads a schedule.
///
/// # Errors
///
/// Fails when the zone is unknown, the line is no schedule, or it never comes true; the message has a correction.
pub fn parse(schedule: &Schedule) -> Result<CronSchedule, String> {
    let zone = TimeZone::get(&schedule.zone).map_err(|_| {
        format!("`{}` is not a time zone of this machine; write for instance `Europe/Berlin` or `UTC`", schedule.zone)
    })?;
    let lines = lines(schedule.cron.trim())
        .and_then(|lines| lines.iter().map(|line| compile(line)).collect::<Result<Vec<_>, _>>())
        .map_err(|why| format!("`{}` is no schedule: {why}", schedule.cron))?;
    let ticks = CronSchedule { lines, zone };
    // Any day will do, as every calendar comes round within 28 years of it.
    let some_day = Time::from_second(1_704_067_200).map_err(|e| e.to_string())?;
    if ticks.next_after(some_day).is_none() {
        return Err(format!("`{}` never comes true: there is no such day", schedule.cron));
    }
    Ok(ticks)
}

impl CronSchedule {
    /// The first tick after `time`; none if there is none left in this century.
    pub fn next_after(&self, time: Time) -> Option<Time> {
        self.after(time).next()
    }

    /// The last tick in `since < tick <= now`: all ticks that were missed in this time, as one.
    pub fn latest_missed(&self, since: Time, now: Time) -> Option<Time> {
        // From the near past to the far one, so that a schedule of seconds never walks through a month.
        for seconds in [60, 3_600, 86_400, 31 * 86_400, 366 * 86_400, 9 * 366 * 86_400] {
            let window = now.as_second().saturating_sub(seconds);
            let start = Time::from_second(window).map_or(since, |window| window.max(since));
            if let Some(last) = self.after(start).take_while(|tick| *tick <= now).last() {
                return Some(last);
            }
            if start == since {
                break;
            }
        }
        None
    }

    /// Every tick after `time`, in order.
    fn after(&self, time: Time) -> impl Iterator<Item = Time> + '_ {
        let mut last = time;
        std::iter::from_fn(move || {
            let next = self.lines.iter().filter_map(|line| self.first(line, last)).min()?;
            last = next;
            Some(next)
        })
    }

    /// The first tick of one line after `time`.
    fn first(&self, line: &cron::Schedule, time: Time) -> Option<Time> {
        let wall = self.zone.to_datetime(time);
        // Just after a gap, ticks that fell into it are still to come: begin before the gap.
        let begin = self
            .zone
            .preceding(time)
            .next()
            .filter(|change| time.as_second() - change.timestamp().as_second() < 4 * 3_600);
        let begin = begin.map_or(wall, |change| {
            let before = Time::from_second(change.timestamp().as_second() - 1).unwrap_or(time);
            self.zone.to_datetime(before).min(wall)
        });
        let mut best: Option<Time> = None;
        for civil in walls(line, begin) {
            if best.is_some_and(|best| civil >= self.zone.to_datetime(best)) {
                break;
            }
            let Ok(placed) = self.zone.to_ambiguous_timestamp(civil).compatible() else { continue };
            if placed > time {
                best = Some(best.map_or(placed, |best| best.min(placed)));
            }
        }
        best
    }
}

/// The wall-clock times that a line names, after `begin`. The crate counts in UTC; we read its answer as a wall clock.
fn walls(line: &cron::Schedule, begin: DateTime) -> impl Iterator<Item = DateTime> + '_ {
    let seconds = TimeZone::UTC.to_timestamp(begin).map_or(0, |time| time.as_second());
    let begin = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    line.after_owned(begin)
        .filter_map(|tick| Time::from_second(tick.timestamp()).ok())
        .map(|t| TimeZone::UTC.to_datetime(t))
}

fn compile(line: &str) -> Result<cron::Schedule, String> {
    cron::Schedule::from_str(line).map_err(|_| {
        "a field is out of its range; the fields are minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-7"
            .to_owned()
    })
}

/// Six fields with seconds first, as the crate requires; two lines where day and weekday are both restricted.
fn lines(text: &str) -> Result<Vec<String>, String> {
    let expanded = match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        word if word.starts_with('@') => {
            return Err("the words are @hourly, @daily, @weekly, @monthly and @yearly".to_owned());
        }
        _ => text,
    };
    let fields: Vec<&str> = expanded.split_whitespace().collect();
    let (seconds, rest) = match fields.as_slice() {
        [_, _, _, _, _] => ("0", fields.as_slice()),
        [seconds, rest @ ..] if rest.len() == 5 => (*seconds, rest),
        other => {
            return Err(format!(
                "it has {} fields; write five (minute hour day month weekday), or six with seconds first",
                other.len()
            ));
        }
    };
    for field in rest.iter().chain([&seconds]) {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | ',' | '-' | '/' | '?');
        if !field.chars().all(known) {
            return Err(format!("`{}` is not understood", field.escape_debug()));
        }
        if field.split(',').any(|part| part.split_once('/').is_some_and(|(_, step)| step.parse::<u32>() == Ok(0))) {
            return Err(format!("a step of 0 in `{field}` would never end"));
        }
    }
    let [minute, hour, day, month, weekday] = rest else { return Err("it has not five fields".to_owned()) };
    let weekdays = weekday_names(weekday)?;
    let line = |day: &str, weekday: &str| format!("{seconds} {minute} {hour} {day} {month} {weekday}");
    let is_open = |field: &str| field.starts_with(['*', '?']);
    let day = if *day == "?" { "*" } else { day };
    // crontab's rule: both restricted means either; a field that begins with a star restricts nothing on its own.
    if is_open(day) || is_open(weekday) {
        return Ok(vec![line(day, &weekdays)]);
    }
    Ok(vec![line(day, "*"), line("*", &weekdays)])
}

/// Weekdays as names: the crate counts from 1 = Sunday, crontab from 0 = Sunday with 7 = Sunday too.
fn weekday_names(field: &str) -> Result<String, String> {
    const NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    if field == "*" || field == "?" {
        return Ok("*".to_owned());
    }
    let wrong = |part: &str| format!("`{part}` is no weekday: write 0-7 (0 and 7 are Sunday) or Mon-Sun");
    let day = |text: &str| -> Result<usize, String> {
        let by_name = NAMES
            .iter()
            .position(|name| text.len() >= 3 && text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(name)));
        by_name.or_else(|| text.parse().ok().filter(|number| *number <= 7)).ok_or_else(|| wrong(text))
    };
    let mut chosen = [false; 7];
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<usize>().map_err(|_| wrong(part))?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((from, to)) => (day(from)?, day(to)?),
            None if part.contains('/') => (day(range)?, 6),
            None => (day(range)?, day(range)?),
        };
        // Fri-Mon goes round the week, and so does 5-7.
        let to = if to < from { to + 7 } else { to };
        for at in (from..=to).step_by(step.max(1)) {
            chosen[at % 7] = true;
        }
    }
    let names: Vec<&str> = NAMES.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(name, _)| *name).collect();
    Ok(names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(cron: &str, zone: &str) -> Result<CronSchedule, String> {
        parse(&Schedule { cron: cron.to_owned(), zone: zone.to_owned() })
    }

    /// The next ticks in the zone's own wall clock.
    fn next(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let ticks = ticks(cron, zone).unwrap();
        let list = ticks.after(after.parse().unwrap()).take(count);
        list.map(|t| t.to_zoned(ticks.zone.clone()).strftime("%a %F %T%:z").to_string()).collect()
    }

    #[test]
    fn five_fields_are_crontabs_with_sunday_as_0_and_7() {
        for sunday in ["0", "7", "sun", "SUNDAY"] {
            let line = format!("30 2 * * {sunday}");
            assert_eq!(next(&line, "UTC", "2026-11-02T00:00:00Z", 1), ["Sun 2026-11-08 02:30:00+00:00"], "{sunday}");
        }
        let week = next("0 9 * * 1-5", "UTC", "2026-11-06T09:00:00Z", 2);
        assert_eq!(week, ["Mon 2026-11-09 09:00:00+00:00", "Tue 2026-11-10 09:00:00+00:00"]);
        let round = next("0 0 * * 5-7", "UTC", "2026-11-02T00:00:00Z", 3);
        assert!(round[0].starts_with("Fri") && round[1].starts_with("Sat") && round[2].starts_with("Sun"), "{round:?}");
    }

    #[test]
    fn six_fields_begin_with_seconds() {
        let list = next("*/20 * * * * *", "UTC", "2026-11-02T00:00:00Z", 3);
        assert_eq!(list[2], "Mon 2026-11-02 00:01:00+00:00");
    }

    #[test]
    fn day_and_weekday_together_mean_either() {
        let list = next("0 0 13 * 5", "UTC", "2026-11-02T00:00:00Z", 3);
        assert_eq!(
            list,
            ["Fri 2026-11-06 00:00:00+00:00", "Fri 2026-11-13 00:00:00+00:00", "Fri 2026-11-20 00:00:00+00:00"]
        );
        let list = next("0 0 12 * 5", "UTC", "2026-11-07T00:00:00Z", 2);
        assert_eq!(list, ["Thu 2026-11-12 00:00:00+00:00", "Fri 2026-11-13 00:00:00+00:00"]);
        // A star with a step restricts nothing on its own: both must hold.
        let list = next("0 0 */2 * 1", "UTC", "2026-11-01T00:00:00Z", 2);
        assert_eq!(list, ["Mon 2026-11-09 00:00:00+00:00", "Mon 2026-11-23 00:00:00+00:00"]);
    }

    #[test]
    fn a_tick_in_the_spring_gap_moves_behind_it_and_is_not_lost_by_a_restart_there() {
        let list = next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(list, ["Sun 2026-03-29 03:30:00+02:00", "Mon 2026-03-30 02:30:00+02:00"]);
        // 03:10 summer time, between the gap and the tick that moved.
        let list = next("30 2 * * *", "Europe/Berlin", "2026-03-29T01:10:00Z", 1);
        assert_eq!(list, ["Sun 2026-03-29 03:30:00+02:00"]);
        // Half an hour of gap: the earlier of two placed ticks comes first.
        let list = next("10,35 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 3);
        assert_eq!(list[..2], ["Sun 2026-10-04 02:35:00+11:00", "Sun 2026-10-04 02:40:00+11:00"]);
    }

    #[test]
    fn a_tick_in_the_autumn_fold_happens_once() {
        let list = next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(list, ["Sun 2026-10-25 02:30:00+02:00", "Mon 2026-10-26 02:30:00+01:00"]);
        let again = next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", 1);
        assert_eq!(again, ["Mon 2026-10-26 02:30:00+01:00"]);
    }

    #[test]
    fn ticks_only_go_forward_whatever_the_zone_does() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata"]
        {
            for cron in ["*/7 * * * *", "0 */3 * * *", "59 1,2,3 * * *"] {
                let ticks = ticks(cron, zone).unwrap();
                let start: Time = "2011-12-28T00:00:00Z".parse().unwrap();
                let list: Vec<Time> = ticks.after(start).take(300).collect();
                assert!(list.windows(2).all(|two| two[0] < two[1]), "{zone} {cron}");
            }
        }
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let hourly = ticks("0 * * * *", "UTC").unwrap();
        let at = |text: &str| text.parse::<Time>().unwrap();
        let missed = hourly.latest_missed(at("2026-10-01T00:00:00Z"), at("2026-11-02T03:10:00Z"));
        assert_eq!(missed, Some(at("2026-11-02T03:00:00Z")));
        assert_eq!(hourly.latest_missed(at("2026-11-02T03:00:00Z"), at("2026-11-02T03:59:59Z")), None);
        assert_eq!(hourly.latest_missed(at("2026-11-02T03:10:00Z"), at("2026-11-02T03:00:00Z")), None);
        let yearly = ticks("@yearly", "UTC").unwrap();
        let missed = yearly.latest_missed(at("2020-06-01T00:00:00Z"), at("2026-11-02T00:00:00Z"));
        assert_eq!(missed, Some(at("2026-01-01T00:00:00Z")));
        let leap = ticks("0 0 29 2 *", "UTC").unwrap();
        assert_eq!(leap.next_after(at("2026-11-02T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_when_it_is_read() {
        for wrong in [
            "",
            "* * * *",
            "* * * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 31 2 *",
            "0 0 30 feb *",
            "* * * 13 *",
            "* * * * 8",
            "* * * * x",
            "0 0 L * *",
            "0 0 * * 5#2",
            "@reboot",
            "*/0 * * * *",
            "a\u{202e} * * * *",
        ] {
            assert!(ticks(wrong, "UTC").is_err(), "{wrong}");
        }
        assert!(ticks("0 0 * * *", "Mars/Base").unwrap_err().contains("time zone"));
    }
}
