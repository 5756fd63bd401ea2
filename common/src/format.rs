//! Numbers, sizes, times and tables as a person reads them. Pure.

use std::time::Duration;

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Lines of at most 96 characters, the first behind `first`, the others behind `rest`, each with its line end.
pub fn wrapped(first: &str, rest: &str, text: &str) -> String {
    const WIDTH: usize = 96;
    let mut lines = vec![first.to_owned()];
    let mut width = first.chars().count();
    let mut is_begun = false;
    for word in text.split(' ') {
        let longer = width + usize::from(is_begun) + word.chars().count();
        match lines.last_mut() {
            Some(line) if longer <= WIDTH || !is_begun => {
                line.push_str(if is_begun { " " } else { "" });
                line.push_str(word);
                width = longer;
            }
            _ => {
                lines.push(format!("{rest}{word}"));
                width = rest.chars().count() + word.chars().count();
            }
        }
        is_begun = true;
    }
    lines.join("\n") + "\n"
}

/// `1 table`, `2 tables`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `512 B`, `1.5 kB`, `305 MB`: powers of 1000, three significant digits.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return format!("{number} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three significant digits are shown")]
    let mut value = number as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 9.995 {
        format!("{value:.2} {unit}")
    } else if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// `12 ms`, `3.4 s`, `5 min 02 s`, `2 h 07 min`, `3 d 04 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else if seconds < 3600 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else if seconds < 86_400 {
        format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60)
    } else {
        format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600)
    }
}

/// `42 s`, `5 min 02 s`: a time that is only estimated, in whole seconds.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        _ => duration(time),
    }
}

/// `42 s`, `5 min`, `7 h`, `12 d`: how long ago, in the largest unit, for a narrow column.
pub fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// The text in at most so many characters; what is cut off is an ellipsis.
pub fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}

/// A table with a header and columns that line up; numbers are right-aligned where `right` says so.
pub fn table(header: &[&str], right: &[bool], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(header.get(column).map(|title| title.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(index, (cell, width))| {
                let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
                if right.get(index).copied().unwrap_or(false) { fill + cell } else { cell.clone() + &fill }
            })
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let titles: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    std::iter::once(line(&titles)).chain(rows.iter().map(|row| line(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_behind_their_indent() {
        assert_eq!(wrapped("  ! ", "    ", "a b"), "  ! a b\n");
        let long = ["word"; 40].join(" ");
        let lines = wrapped("  ! ", "    ", &long);
        assert!(lines.lines().all(|line| line.len() <= 96 && !line.ends_with(' ')), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with("    word")), "{lines}");
        assert_eq!(lines.split_whitespace().filter(|word| *word == "word").count(), 40);
        let word = "x".repeat(120);
        assert_eq!(wrapped("  ", "    ", &word), format!("  {word}\n"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500), "1.50 kB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(305_000_000), "305 MB");
        assert_eq!(duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(duration(Duration::from_secs(302)), "5 min 02 s");
        assert_eq!(duration(Duration::from_secs(100_000)), "1 d 03 h");
    }

    #[test]
    fn ages_and_texts_fit_narrow_columns() {
        let ages = [0, 59, 60, 7199, 86_399, 86_400 * 400].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0 s", "59 s", "1 min", "1 h", "23 h", "400 d"]);
        assert_eq!(
            (cut("häuser", 6), cut("häuser", 5), cut("ab", 0)),
            ("häuser".into(), "häus…".into(), "…".into())
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "23".to_owned()]];
        assert_eq!(table(&["N", "ROWS"], &[false, true], &rows), "N    ROWS\na       1\nbcd    23\n");
    }
}
