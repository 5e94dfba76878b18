//! What is wrong in a configuration, and where. Problems are collected, never thrown one by one,
//! and are shown together with their source lines. It knows nothing of YAML or of any one key.
use std::fmt;

pub mod mask;
mod render;

pub use render::{render, render_each};

/// One problem. `path` names the place in the file (`routes[2].match.paths[0]`); the line and
/// column are found from it when the problem is shown, unless `at` says them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub path: Path,
    /// For what has no path of its own: a syntax error, the second of two equal keys.
    pub at: Option<Place>,
    pub message: String,
    pub hint: Option<String>,
}

/// A line and a column of the file, both from 1; a column counts characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A file that can say where a path is and what stands there.
pub trait Places {
    /// The file's name as the operator knows it.
    fn file(&self) -> &str;

    /// Where `path` is, or the nearest of its ancestors that exists; `None` where there is none.
    fn locate(&self, path: &Path) -> Option<Place>;

    /// The text of a line, from 1, without its line break.
    fn line(&self, line: usize) -> Option<&str>;

    /// `text`, said about `path`, without what must not be shown.
    fn hide(&self, path: &Path, text: &str) -> String;
}

impl Diagnostic {
    /// For an unknown key that is near a known one: where that one would stand.
    #[must_use]
    pub fn meant(&self) -> Option<Path> {
        let word = self.hint.as_deref()?.strip_prefix("did you mean `")?.split('`').next()?;
        let mut path = self.path.clone();
        path.0.pop()?;
        Some(path.key(word))
    }
}

/// A place in the file, step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    Index(usize),
    /// So many characters into a word. The last step, if there is one.
    Offset(usize),
}

impl Path {
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// A place within the word at this path.
    #[must_use]
    pub fn offset(&self, characters: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Offset(characters));
        Self(steps)
    }

    /// Whether this is `other`, or `other` is somewhere inside it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

/// `routes[2].match."X.Y"[0]`; the root is the empty text.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '*');
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                // The line and the column say it.
                Step::Offset(_) => {}
                Step::Key(key) => {
                    if depth > 0 {
                        f.write_str(".")?;
                    }
                    if !key.is_empty() && key.chars().all(plain) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Most problems that are shown at once: nobody mends more before the next look.
pub const MOST: usize = 100;

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Problems(pub Vec<Diagnostic>);

impl Problems {
    /// Keeps the problem, up to one more than are shown: that one says that some were left out.
    pub fn push(&mut self, problem: Diagnostic) {
        if !self.is_full() {
            self.0.push(problem);
        }
    }

    pub fn add(&mut self, path: &Path, message: impl Into<String>) {
        self.push(Diagnostic { path: path.clone(), at: None, message: message.into(), hint: None });
    }

    pub fn add_with_hint(
        &mut self,
        path: &Path,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let hint = Some(hint.into());
        self.push(Diagnostic { path: path.clone(), at: None, message: message.into(), hint });
    }

    /// The value, or a problem at `path` and nothing.
    /// # Errors
    /// There are some.
    pub fn none(&mut self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(Self(std::mem::take(&mut self.0))) }
    }

    pub fn keep<T>(&mut self, path: &Path, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                self.add(path, message);
                None
            }
        }
    }

    /// Whether no further problem would be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() > MOST
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The hint "did you mean `listeners`?" when one of the known words is near enough to `word`.
/// Case, `-` and `_` do not count. Equally near words: the first of them.
#[must_use]
pub fn did_you_mean<S: AsRef<str>>(word: &str, known: &[S]) -> Option<String> {
    // A longer word is no typo of a key, and the comparison takes the product of both lengths.
    const LONGEST: usize = 64;
    const NEAR: f64 = 0.85;
    let fold = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let word = fold(word);
    let mut nearest: Option<(f64, &str)> = None;
    for known in known.iter().map(AsRef::as_ref).filter(|known| known.len() <= LONGEST) {
        let score = strsim::jaro_winkler(&word, &fold(known));
        if score >= NEAR && nearest.is_none_or(|(best, _)| score > best) {
            nearest = Some((score, known));
        }
    }
    nearest.map(|(_, known)| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_one_would_write_it() {
        let path = Path::root().key("routes").index(2).key("match").key("X.Y").index(0);
        assert_eq!(path.to_string(), r#"routes[2].match."X.Y"[0]"#);
        assert_eq!(Path::root().to_string(), "");
        assert_eq!(
            Path::root().key("a\u{1b}").key("").to_string(),
            r#""a\u{1b}".."""#.replace("..", ".")
        );
    }

    fn check_hint(word: &str, known: &[&str], expected: Option<&str>) {
        let expected = expected.map(|word| format!("did you mean `{word}`?"));
        assert_eq!(did_you_mean(word, known), expected, "{word}");
    }

    #[test]
    fn the_nearest_word_is_proposed() {
        let known = ["version", "server", "listeners", "rate_limits", "routes", "upstreams"];
        check_hint("lisen", &known, Some("listeners"));
        check_hint("route", &known, Some("routes"));
        check_hint("rateLimits", &known, Some("rate_limits"));
        check_hint("UPSTREAM", &known, Some("upstreams"));
        check_hint("verison", &known, Some("version"));
        check_hint("zzz", &known, None);
        check_hint("", &known, None);
        check_hint(&"x".repeat(1 << 20), &known, None);
    }

    #[test]
    fn problems_are_bounded() {
        let mut problems = Problems::default();
        for _ in 0..10_000 {
            problems.add(&Path::root(), "no");
        }
        assert_eq!(problems.0.len(), MOST + 1);
    }
}
