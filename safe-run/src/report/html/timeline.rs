//! When each phase began and how long it took, as bars. Pure.

use common::html::text;

use super::{heading, seconds};
use crate::{journal::Mode, report::Report};

/// With more files than this they share one bar.
const FILES: usize = 12;

/// Width of a bar in units of its picture, which is stretched to the width there is.
const WIDTH: f64 = 1000.0;

/// A bar that is thinner than this can't be seen.
const MIN_WIDTH: f64 = 3.0;

struct Bar {
    start: f64,
    length: f64,
    class: &'static str,
}

/// The timeline; empty for a run without phases.
pub fn section(report: &Report) -> String {
    if report.phases.is_empty() {
        return String::new();
    }
    let end = report
        .phases
        .iter()
        .map(|phase| phase.started_seconds + phase.seconds)
        .fold(report.seconds, f64::max)
        .max(0.001);
    let mut items = format!(
        "<li class=\"scale\" aria-hidden=\"true\"><span><i>0</i><i>{}</i></span></li>\n",
        seconds(end)
    );
    for phase in &report.phases {
        let class = class_of(&phase.name);
        let bar = Bar { start: phase.started_seconds, length: phase.seconds, class };
        items.push_str(&item("", &phase.name, &[bar], phase.started_seconds, phase.seconds, end));
        if phase.name == "migrations" {
            items.push_str(&files(report, end));
        }
        if phase.name.starts_with("fence")
            && let Some(stood) = report.fence_seconds
        {
            let start = phase.started_seconds + phase.seconds;
            let bar = Bar { start, length: stood, class: "fill-warn faint" };
            let name = match report.mode {
                Mode::Transaction => "writers wait",
                Mode::Restore => "writers are refused",
            };
            items.push_str(&item("", name, &[bar], start, stood, end));
        }
    }
    format!("<section>\n{}<ol class=\"timeline\">\n{items}</ol>\n</section>\n", heading("Timeline"))
}

fn files(report: &Report, end: f64) -> String {
    let bar = |index: usize| {
        let file = &report.migrations[index];
        let class = match (file.complete, index % 2) {
            (false, _) => "fill-bad",
            (true, 0) => "work",
            _ => "work faint",
        };
        Bar { start: file.started_seconds, length: file.seconds, class }
    };
    let count = report.migrations.len();
    if count <= 1 {
        return String::new();
    }
    if count <= FILES {
        return (0..count)
            .map(|index| {
                let file = &report.migrations[index];
                let class = if file.complete { "work" } else { "fill-bad" };
                let bar = Bar { class, ..bar(index) };
                item(" file", &file.file, &[bar], file.started_seconds, file.seconds, end)
            })
            .collect();
    }
    let mut slowest: Vec<usize> = (0..count).collect();
    slowest.sort_by(|a, b| report.migrations[*b].seconds.total_cmp(&report.migrations[*a].seconds));
    let title =
        format!("<li class=\"file\"><span class=\"name\">the slowest of {count} files:</span></li>\n");
    let bars: String = slowest
        .into_iter()
        .take(5)
        .map(|index| {
            let file = &report.migrations[index];
            item(" file", &file.file, &[bar(index)], file.started_seconds, file.seconds, end)
        })
        .collect();
    title + &bars
}

fn item(kind: &str, name: &str, bars: &[Bar], started: f64, took: f64, end: f64) -> String {
    let rects: String = bars
        .iter()
        .map(|bar| {
            let width = (bar.length / end * WIDTH).clamp(MIN_WIDTH, WIDTH);
            let x = (bar.start / end * WIDTH).clamp(0.0, WIDTH - width);
            format!("<rect class=\"{}\" x=\"{x:.1}\" width=\"{width:.1}\" height=\"10\"/>", bar.class)
        })
        .collect();
    format!(
        "<li class=\"step{kind}\"><span class=\"name\">{}</span><svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\"><rect class=\"track\" width=\"1000\" height=\"10\"/>{rects}</svg>\
         <span class=\"took\">{}<span class=\"unseen\"> from {} on</span></span></li>\n",
        text(name),
        seconds(took),
        seconds(started)
    )
}

/// The colour of a phase, by its first word; the name beside it says the same.
fn class_of(name: &str) -> &'static str {
    match name.split([' ', ':']).next().unwrap_or_default() {
        "migrations" | "command" => "work",
        "snapshot" | "checks" => "look",
        "undo" => "fill-warn",
        "commit" => "fill-good",
        _ => "calm",
    }
}
