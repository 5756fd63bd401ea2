//! A quantity over time as inline SVG. Pure. Colours come from the page's style sheet, numbers also as text for whoever does
//! not see the picture.

use std::fmt::Write;

use chrono::{DateTime, Utc};

use common::html::text as escape;

/// One point.
#[derive(Debug, Clone)]
pub struct Point {
    /// When.
    pub at: DateTime<Utc>,
    /// How much.
    pub value: f64,
    /// What is shown when the pointer is on it.
    pub label: String,
    /// Whether it is drawn as a failure.
    pub is_bad: bool,
}

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 20.0;

/// Draws the points, which are in order of time; `show` writes a value of the axis. Nothing is drawn of fewer than two.
pub fn plot(title: &str, points: &[Point], show: impl Fn(f64) -> String) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    if points.len() < 2 {
        return String::new();
    }
    let most = points.iter().map(|point| point.value).fold(0.0, f64::max);
    let top = nice(most);
    let span = (last.at - first.at).num_milliseconds().max(1);
    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    let x = |at: DateTime<Utc>| {
        LEFT + (WIDTH - LEFT - RIGHT) * ((at - first.at).num_milliseconds() as f64 / span as f64)
    };
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top);
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title),
        escape(&format!("{title}: from {} to {}, last {}", show(0.0), show(most), show(last.value))),
    );
    for share in [0.0, 0.5, 1.0] {
        let (at, text) = (y(top * share), escape(&show(top * share)));
        // Writing to a String can't fail.
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            at + 3.5
        );
    }
    let format = if span > 3 * 86_400_000 { "%-d %b" } else { "%-d %b %H:%M" };
    for (point, class, at) in [(first, "start", LEFT), (last, "end", WIDTH - RIGHT)] {
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" class=\"{class}\">{}</text>",
            HEIGHT - 5.0,
            point.at.format(format)
        );
    }
    let path: Vec<String> =
        points.iter().map(|point| format!("{:.1},{:.1}", x(point.at), y(point.value))).collect();
    let _ = write!(svg, "<polyline points=\"{}\"/>", path.join(" "));
    // Dots of a long row would hide the line.
    let radius = if points.len() > 60 { 1.2 } else { 2.4 };
    for point in points {
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"{}><title>{}</title></circle>",
            x(point.at),
            y(point.value),
            if point.is_bad { " class=\"bad\"" } else { "" },
            escape(&point.label)
        );
    }
    svg.push_str("</svg></figure>");
    svg
}

/// The next number of the form 1, 2, 4 or 5 times a power of ten: its half is easy to read as well.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 10.0].iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_ends_at_a_number_that_is_easy_to_read() {
        for (value, top) in [(0.0, 1.0), (0.3, 0.4), (1.0, 1.0), (7.0, 10.0), (41.0, 50.0), (305e6, 400e6)] {
            assert!((nice(value) - top).abs() < top * 1e-9, "{value}: {}", nice(value));
        }
    }

    #[test]
    fn every_point_is_inside_of_the_picture_and_hostile_text_is_escaped() {
        let at = |n: i64| DateTime::from_timestamp(1_795_000_000 + n * 60, 0).unwrap();
        let points: Vec<Point> = [3.0, 0.0, 10.0]
            .iter()
            .zip(0..)
            .map(|(&value, n)| Point { at: at(n), value, label: "<b>".into(), is_bad: n == 1 })
            .collect();
        let svg = plot("<size>", &points, |value| format!("{value:.0}"));
        assert!(!svg.contains("<b>") && !svg.contains("<size>"), "{svg}");
        for (name, most) in [("cx=\"", WIDTH), ("cy=\"", HEIGHT)] {
            for part in svg.split(name).skip(1) {
                let number: f64 = part.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=most).contains(&number), "{name}{number}");
            }
        }
        assert_eq!(plot("x", &points[..1], |value| value.to_string()), "");
    }
}
