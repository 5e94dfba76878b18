//! A pattern that is looked for in text as it comes: what is found is what would be found in the whole
//! text, however it is cut, and no more of the text is held back than may still become a match.
use std::{fmt, sync::Arc};

use regex_automata::{
    Anchored, Input, MatchKind,
    hybrid::{
        BuildError,
        dfa::{self, DFA},
    },
    meta,
    nfa::thompson,
    util::pool::Pool,
};

/// Bytes that a compiled pattern may take: `\w` a hundred times is half a megabyte.
const SIZE: usize = 10 << 20;
/// Bytes of what is remembered of it while texts stream.
const CACHE: usize = 1 << 20;
/// Bytes of the longest match in a text that streams: so much of it may have to be held back.
pub const LONGEST: usize = 1024;
/// Of a character: what `\b` and its like look at beyond a match.
const BESIDE: usize = 4;

/// Linear in the text, whatever the pattern.
pub struct Pattern {
    regex: meta::Regex,
    /// Of one that is looked for in streams.
    streamed: Option<Streamed>,
}

struct Streamed {
    /// Bytes of the longest match.
    longest: usize,
    /// Tells where a match can no longer begin.
    dfa: Arc<DFA>,
    caches: Pool<dfa::Cache, MakeCache>,
}

type MakeCache =
    Box<dyn Fn() -> dfa::Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern")
    }
}

/// A text of which the end is not known yet.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// What may still become a match, after the character before it.
    text: String,
    /// Where that begins.
    from: usize,
}

/// What is at one place of a text.
enum Verdict {
    Nothing,
    /// A match up to here.
    Match(usize),
    /// More of the text will tell.
    Open,
}

impl Pattern {
    /// With `is_streamed`, also for texts that stream.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn compile(text: &str, is_streamed: bool) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| {
            // The lines before the last draw the place, which the file's own line shows.
            let why = why.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{text:?} is not a regex: {why}")
        };
        let parsed = regex_syntax::parse(text).map_err(|why| wrong(&why))?;
        let properties = parsed.properties();
        if properties.minimum_len().is_none_or(|it| it == 0) {
            return Err("matches nothing at all, that is, everywhere".to_owned());
        }
        let longest = properties.maximum_len().filter(|it| *it <= LONGEST);
        let regex = meta::Builder::new()
            .configure(meta::Config::new().nfa_size_limit(Some(SIZE)))
            .build_from_hir(&parsed)
            .map_err(|why| wrong(&why))?;
        let streamed = match (is_streamed, longest) {
            (false, _) => None,
            (true, Some(longest)) => Some(Streamed::new(text, longest).map_err(|why| wrong(&why))?),
            (true, None) => {
                return Err(format!(
                    "a match in an answer is at most {LONGEST} bytes, so that no more of a stream is held back: \
                     write bounds such as {{1,64}} in place of + and *"
                ));
            }
        };
        Ok(Self { regex, streamed })
    }

    #[must_use]
    pub fn is_in(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The text with `with` in place of each match; none where there is none.
    #[must_use]
    pub fn replaced(&self, text: &str, with: &str) -> Option<String> {
        let (mut out, mut from) = (String::new(), 0);
        for found in self.regex.find_iter(text) {
            out.push_str(text.get(from..found.start()).unwrap_or_default());
            out.push_str(with);
            from = found.end();
        }
        if from == 0 {
            return None;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Some(out)
    }

    /// Takes more of a text and appends what is settled of it to `out`, with `with` in place of each
    /// match. Whether there was one.
    pub fn advance(&self, tail: &mut Tail, more: &str, with: &str, out: &mut String) -> bool {
        self.walk(tail, more, false, with, out)
    }

    /// The same for what is left at the end of the text.
    pub fn end(&self, tail: &mut Tail, with: &str, out: &mut String) -> bool {
        let is_found = self.walk(tail, "", true, with, out);
        *tail = Tail::default();
        is_found
    }

    fn walk(
        &self,
        tail: &mut Tail,
        more: &str,
        is_last: bool,
        with: &str,
        out: &mut String,
    ) -> bool {
        tail.text.push_str(more);
        let text = tail.text.as_str();
        let (mut is_found, mut from) = (false, tail.from);
        // Whatever begins before this has its longest match and what is beside it in the text.
        let reach = self.streamed.as_ref().map_or(usize::MAX, |it| it.longest + BESIDE);
        let settled = if is_last { text.len() } else { text.len().saturating_sub(reach) };
        let mut take = |from: &mut usize, start: usize, end: usize| {
            out.push_str(text.get(*from..start).unwrap_or_default());
            out.push_str(with);
            is_found = true;
            *from = end;
        };
        while let Some(found) = self.regex.find(Input::new(text).range(from..)) {
            if !is_last && found.start() >= settled {
                break;
            }
            take(&mut from, found.start(), found.end());
        }
        let mut at = if is_last { text.len() } else { from.max(ceil(text, settled)) };
        while at < text.len() {
            match self.judge(text, at) {
                Verdict::Nothing => at = ceil(text, at + 1),
                Verdict::Match(end) => {
                    take(&mut from, at, end);
                    at = end;
                }
                Verdict::Open => break,
            }
        }
        out.push_str(text.get(from..at).unwrap_or_default());
        // The character before stays: `\b` and `^` look at it.
        let before = text.get(..at).and_then(|it| it.char_indices().next_back());
        let before = before.map_or(0, |(index, _)| index);
        tail.text.drain(..before);
        tail.from = at - before;
        is_found
    }

    /// What begins at `at`, as far as this much of the text says.
    fn judge(&self, text: &str, at: usize) -> Verdict {
        let Some(streamed) = &self.streamed else { return Verdict::Open };
        let mut cache = streamed.caches.get();
        let input = Input::new(text).range(at..).anchored(Anchored::Yes);
        // It gives up where a Unicode character stands beside a `\b`: then the whole of it must be there.
        let Ok(mut state) = streamed.dfa.start_state_forward(&mut cache, &input) else {
            return Verdict::Open;
        };
        let mut end = None;
        for (offset, byte) in text.as_bytes().iter().enumerate().skip(at) {
            let Ok(next) = streamed.dfa.next_state(&mut cache, state, *byte) else {
                return Verdict::Open;
            };
            state = next;
            if state.is_match() {
                end = Some(offset);
            } else if state.is_dead() {
                return end.map_or(Verdict::Nothing, Verdict::Match);
            } else if state.is_quit() {
                return Verdict::Open;
            }
        }
        // Whatever comes next, the match is this one.
        let is_over = |byte: u8| {
            let next = streamed.dfa.next_state(&mut cache, state, byte);
            next.is_ok_and(|it| it.is_dead())
        };
        match end {
            Some(end) if (0..=u8::MAX).all(is_over) => Verdict::Match(end),
            _ => Verdict::Open,
        }
    }
}

impl Streamed {
    fn new(pattern: &str, longest: usize) -> Result<Self, Box<BuildError>> {
        let config = dfa::Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .unicode_word_boundary(true)
            .skip_cache_capacity_check(true)
            .cache_capacity(CACHE);
        let nfa = thompson::Config::new()
            .nfa_size_limit(Some(SIZE))
            .which_captures(thompson::WhichCaptures::None);
        let dfa = dfa::Builder::new().configure(config).thompson(nfa).build(pattern)?;
        let dfa = Arc::new(dfa);
        let made = dfa.clone();
        let make: MakeCache = Box::new(move || made.create_cache());
        Ok(Self { longest, dfa, caches: Pool::new(make) })
    }
}

/// The first boundary of a character from `at` on.
fn ceil(text: &str, mut at: usize) -> usize {
    while at < text.len() && !text.is_char_boundary(at) {
        at += 1;
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn streamed(pattern: &Pattern, pieces: &[&str]) -> (String, bool) {
        let (mut tail, mut out, mut is_found) = (Tail::default(), String::new(), false);
        for piece in pieces {
            is_found |= pattern.advance(&mut tail, piece, "*", &mut out);
        }
        is_found |= pattern.end(&mut tail, "*", &mut out);
        (out, is_found)
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let check = |text: &str, is_streamed: bool, part: &str| {
            let why = Pattern::compile(text, is_streamed).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        };
        check("(", false, "is not a regex");
        check("(?=a)", false, "is not a regex");
        check("a*", false, "everywhere");
        check(r"\b", false, "everywhere");
        check("a+", true, "write bounds");
        check("a{1,2000}", true, "write bounds");
        check(r"[\w]{1000}{100}", false, "is not a regex");
        assert!(Pattern::compile("a+", false).is_ok());
        assert!(Pattern::compile(r"(?i)\b[\w.+-]{1,64}@[\w.-]{1,100}\b", true).is_ok());
    }

    /// What goes out with each piece.
    fn steps(pattern: &str, pieces: &[&str], expected: &[&str]) {
        let pattern = Pattern::compile(pattern, true).unwrap();
        let mut tail = Tail::default();
        let mut all = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            pattern.advance(&mut tail, piece, "*", &mut out);
            all.push(out);
        }
        let mut out = String::new();
        pattern.end(&mut tail, "*", &mut out);
        all.push(out);
        assert_eq!(all, expected, "{pieces:?}");
    }

    #[test]
    fn only_what_may_become_a_match_is_held_back() {
        let cards = r"\b(?:\d[ -]?){13,16}\b";
        steps(cards, &["Hello ", "world.", " Bye"], &["Hello ", "world.", " Bye", ""]);
        steps(cards, &["no 41", "11 ", "1x", "."], &["no ", "", "4111 1x", ".", ""]);
        steps(cards, &["card 4111 1111", " 1111 111", "1, ok"], &["card ", "", "*, ok", ""]);
        steps(cards, &["4111111111111111"], &["", "*"]);
        steps("secret", &["a sec", "ond sec", "ret", "!"], &["a ", "second ", "", "*!", ""]);
        steps("ab|abc", &["xa", "b", "c"], &["x", "", "*c", ""]);
        steps("abc|ab", &["xa", "b", "d"], &["x", "", "*d", ""]);
        steps("end$", &["the end", " is no end"], &["the ", "end is no ", "*"]);
        steps("^a", &["ba", "a"], &["ba", "a", ""]);
    }

    #[test]
    fn nothing_grows_beyond_the_longest_match() {
        let pattern = Pattern::compile(r"\b[a-z]{1,40}!", true).unwrap();
        let mut tail = Tail::default();
        let mut out = String::new();
        for _ in 0..1000 {
            pattern.advance(&mut tail, "aaaaaaa", "*", &mut out);
            assert!(tail.text.len() < 64, "{}", tail.text.len());
        }
    }

    const PATTERNS: [&str; 12] = [
        r"\b(?:\d[ -]?){3,6}\b",
        "ab|abc|bca",
        "abc|ab",
        r"(?i)\bs[eé]c\b",
        "a{2,4}b?",
        "^a|b$",
        r"\Aa|a\z",
        r"[a-c]{1,3}-[a-c]{1,3}",
        r"\B1|é{2}",
        "(?m)^b|a$",
        r".b\W",
        r"(?s)a.{0,5}?c",
    ];

    proptest! {
        #[test]
        fn a_stream_is_guarded_as_the_whole_text_is(
            which in 0..PATTERNS.len(),
            text in "([abc1 -]|[abcésS12 \n-]|sec|séc){0,40}",
            cuts in proptest::collection::vec(0_usize..100, 0..12),
        ) {
            let pattern = Pattern::compile(PATTERNS[which], true).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|it| ceil(&text, it)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|it| &text[it[0]..it[1]]).collect();
            let whole = pattern.replaced(&text, "*");
            let (streamed, is_found) = streamed(&pattern, &pieces);
            prop_assert_eq!(is_found, whole.is_some());
            prop_assert_eq!(streamed, whole.unwrap_or(text));
        }
    }
}
