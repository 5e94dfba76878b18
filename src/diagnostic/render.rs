//! Problems as the operator reads them: `file:line:col path: message`, the source line, a caret
//! under the column, the hint. In the order of the file.
use std::fmt::Write;

use super::{Diagnostic, MOST, Place, Places, mask::Masked};

/// Most characters shown of one source line; a longer one is cut around the column.
const WIDTH: usize = 120;

/// Shows the problems, first in the file first, `MOST` of them at most; secrets in the source
/// lines are masked. Ends with a line break unless there is no problem.
#[must_use]
pub fn render(problems: &[Diagnostic], places: &dyn Places) -> String {
    render_each(problems, places).iter().map(|shown| format!("{shown}\n")).collect()
}

/// As [`render`], a text a problem, each without a line break at its end.
#[must_use]
pub fn render_each(problems: &[Diagnostic], places: &dyn Places) -> Vec<String> {
    let mut placed: Vec<(Option<Place>, &Diagnostic)> = problems
        .iter()
        .map(|problem| (problem.at.or_else(|| places.locate(&problem.path)), problem))
        .collect();
    placed.sort_by(|(a, first), (b, second)| (a, &first.path).cmp(&(b, &second.path)));
    // The same fault seen by two stages is one fault.
    placed.dedup_by(|(a, first), (b, second)| a == b && first.message == second.message);
    let mut shown = Vec::new();
    // Many problems may share one very long line, which is then searched for secrets once.
    let mut last: Option<(usize, Masked)> = None;
    for (place, problem) in placed.iter().take(MOST) {
        let mut out = String::new();
        head(&mut out, *place, problem, places);
        if let Some(place) = place {
            if last.as_ref().is_none_or(|(line, _)| *line != place.line) {
                last = Masked::of(places, place.line).map(|masked| (place.line, masked));
            }
            if let Some((_, masked)) = &last {
                source_line(&mut out, *place, masked);
            }
        }
        if let Some(hint) = &problem.hint {
            let _ = writeln!(out, "  hint: {}", printable(&places.hide(&problem.path, hint)));
        }
        out.truncate(out.trim_end().len());
        shown.push(out);
    }
    if placed.len() > MOST {
        shown.push("more problems were left out: mend these first".to_owned());
    }
    shown
}

fn head(out: &mut String, place: Option<Place>, problem: &Diagnostic, places: &dyn Places) {
    out.push_str(&printable(places.file()));
    if let Some(Place { line, column }) = place {
        // Writing to a String cannot fail.
        let _ = write!(out, ":{line}:{column}");
    }
    let path = problem.path.to_string();
    if !path.is_empty() {
        out.push(' ');
        out.push_str(&printable(&path));
    }
    let _ = writeln!(out, ": {}", printable(&places.hide(&problem.path, &problem.message)));
}

fn source_line(out: &mut String, place: Place, masked: &Masked) {
    let shown = &masked.shown;
    let before = masked.column(place.column).saturating_sub(1);
    let skipped = if shown.len() > WIDTH { before.saturating_sub(WIDTH / 2) } else { 0 };
    let mut window: String = shown.iter().skip(skipped).take(WIDTH).collect();
    if window.trim().is_empty() {
        return;
    }
    let mut caret = before.saturating_sub(skipped);
    if skipped > 0 {
        window.insert(0, '…');
        caret += 1;
    }
    if shown.len() > skipped + WIDTH {
        window.push('…');
    }
    let number = place.line.to_string();
    let _ = writeln!(out, "  {number} | {}", printable(&window).trim_end());
    let _ = writeln!(out, "  {:width$} | {:caret$}^", "", "", width = number.len());
}

/// Without what moves the cursor, colours the terminal or turns the reading direction: the file
/// may come from someone else than its reader. One character for one, so that carets stay right.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                '\u{fffd}'
            }
            '\u{feff}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::Path, *};

    struct Text(&'static str);

    impl Places for Text {
        fn hide(&self, _: &Path, text: &str) -> String {
            text.to_owned()
        }

        fn file(&self) -> &str {
            "t.yaml"
        }
        fn locate(&self, path: &Path) -> Option<Place> {
            let line = path.0.len();
            (line > 0).then_some(Place { line, column: 1 })
        }
        fn line(&self, line: usize) -> Option<&str> {
            self.0.lines().nth(line.checked_sub(1)?)
        }
    }

    fn problem(path: Path, at: Option<(usize, usize)>, hint: Option<&str>) -> Diagnostic {
        let at = at.map(|(line, column)| Place { line, column });
        Diagnostic { path, at, message: "bad".to_owned(), hint: hint.map(str::to_owned) }
    }

    fn check(text: &'static str, problems: &[Diagnostic], expected: &str) {
        assert_eq!(render(problems, &Text(text)), expected);
    }

    #[test]
    fn in_the_order_of_the_file() {
        let a = Path::root().key("a");
        check(
            "a: 1\nb: 2\n",
            &[problem(a.key("b"), None, Some("good")), problem(a, Some((1, 4)), None)],
            "t.yaml:1:4 a: bad\n  1 | a: 1\n    |    ^\n\
             t.yaml:2:1 a.b: bad\n  2 | b: 2\n    | ^\n  hint: good\n",
        );
    }

    #[test]
    fn without_a_place_there_is_no_line() {
        check("", &[problem(Path::root(), None, None)], "t.yaml: bad\n");
        check("", &[problem(Path::root(), Some((1, 1)), None)], "t.yaml:1:1: bad\n");
    }

    #[test]
    fn a_terminal_cannot_be_steered() {
        check(
            "a:\t\u{1b}[31m\n",
            &[problem(Path::root(), Some((1, 4)), None)],
            "t.yaml:1:4: bad\n  1 | a: \u{fffd}[31m\n    |    ^\n",
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let line: &'static str =
            Box::leak(format!("{}X{}", "a".repeat(500), "b".repeat(500)).into());
        let shown = render(&[problem(Path::root(), Some((1, 501)), None)], &Text(line));
        let mut lines = shown.lines().skip(1);
        let (source, caret) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(source.chars().count() < 140, "{source}");
        let column = caret.chars().position(|c| c == '^').unwrap();
        assert_eq!(source.chars().nth(column), Some('X'));
    }

    #[test]
    fn beyond_a_hundred_the_rest_is_left_out() {
        let problems: Vec<_> =
            (1..=102).map(|n| problem(Path::root(), Some((n, 1)), None)).collect();
        let shown = render(&problems, &Text(""));
        assert_eq!(shown.lines().count(), 101);
        assert!(shown.ends_with("more problems were left out: mend these first\n"));
    }
}
