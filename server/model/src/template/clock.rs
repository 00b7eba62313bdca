//! `strftime_now`: today's date, as system prompts like to state it.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From the weekday of 1970-01-01.
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const DAY_SECONDS: u64 = 86_400;
/// Longest format, bytes.
const MAX_FORMAT: usize = 256;

/// `now`, in UTC and English, as strftime's `format` says; the directives templates use.
pub(super) fn format(now: SystemTime, format: &str) -> Result<String, Error> {
    if format.len() > MAX_FORMAT {
        return Err(Error::new(ErrorKind::InvalidOperation, "the date's format is too long"));
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / DAY_SECONDS);
    let weekday = WEEKDAYS[(seconds / DAY_SECONDS % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let (hour, minute, second) = (seconds % DAY_SECONDS / 3600, seconds % 3600 / 60, seconds % 60);
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        // Writing to a string does not fail.
        let _ = match characters.next() {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('-') if characters.as_str().starts_with('d') => {
                characters.next();
                write!(out, "{day}")
            }
            Some('B') => write!(out, "{month_name}"),
            Some('b') => write!(out, "{}", &month_name[..3]),
            Some('A') => write!(out, "{weekday}"),
            Some('a') => write!(out, "{}", &weekday[..3]),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('%') => write!(out, "%"),
            _ => {
                let why = format!("the date's format {format:?} is not supported");
                return Err(Error::new(ErrorKind::InvalidOperation, why));
            }
        };
    }
    Ok(out)
}

/// Year, month and day, `days` after 1970-01-01 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from the first of March of the year 0, so that leap days come last in a year:
    // 146 097 days are 400 years, and months from March repeat 153 days each five.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, said: &str) -> String {
        format(UNIX_EPOCH + Duration::from_secs(seconds), said).unwrap()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(at(0, "%A %d %B %Y %H:%M:%S"), "Thursday 01 January 1970 00:00:00");
        assert_eq!(at(951_827_696, "%a %e %b %y %H:%M:%S"), "Tue 29 Feb 00 12:34:56");
        assert_eq!(at(4_107_542_399, "%Y-%m-%d, %-d%%"), "2100-02-28, 28%");
        assert_eq!(at(4_107_542_400, "%Y-%m-%d"), "2100-03-01");
    }

    #[test]
    fn unknown_directives_are_refused() {
        for said in ["%Q", "%", "%-m", &"x".repeat(257)] {
            assert!(format(UNIX_EPOCH, said).is_err(), "{said}");
        }
    }
}
