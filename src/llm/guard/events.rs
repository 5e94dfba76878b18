//! Guards over an answer that is translated as it streams. Text goes out as soon as no guard may want it;
//! what a tool is told goes out when it is whole, since half of it is no JSON.
use super::{Blocked, Flow, Found, Guards, Side, body::Walk};
use crate::llm::chat::Event;

/// Bytes of what one tool is told, at most.
pub const LONGEST_ARGUMENTS: usize = 4 << 20;

/// The block that is under way.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Text(Flow),
    Thinking(Flow),
    Arguments(String),
}

#[derive(Debug, Default)]
pub struct Events {
    open: Open,
    /// All that was said, for who is asked about it; none where nobody is.
    said: Option<Vec<String>>,
}

/// Why an answer may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Blocked(Blocked),
    /// What a tool is told is too long to be looked at.
    TooLong,
    /// Who would have to be asked does not answer: the place of that guard.
    Unavailable(usize),
}

impl From<Blocked> for Stopped {
    fn from(blocked: Blocked) -> Self {
        Self::Blocked(blocked)
    }
}

impl Events {
    /// With `is_told`, what was said can be had at the end.
    #[must_use]
    pub fn new(is_told: bool) -> Self {
        Self { open: Open::Nothing, said: is_told.then(Vec::new) }
    }

    /// All texts of the answer so far.
    #[must_use]
    pub fn said(&mut self) -> Vec<String> {
        self.said.take().unwrap_or_default()
    }

    /// What is said next is a text of its own.
    fn begin(&mut self) {
        if let Some(said) =
            self.said.as_mut().filter(|it| it.last().is_none_or(|it| !it.is_empty()))
        {
            said.push(String::new());
        }
    }

    fn say(&mut self, text: &str) {
        if let Some(last) = self.said.as_mut().and_then(|it| it.last_mut()) {
            last.push_str(text);
        }
    }

    /// Takes one event, and appends what may go out.
    ///
    /// # Errors
    /// The answer may not go on.
    pub fn push(
        &mut self,
        guards: &Guards,
        event: Event,
        found: &mut Found,
        out: &mut Vec<Event>,
    ) -> Result<(), Stopped> {
        match event {
            Event::Text(more) => {
                if !matches!(self.open, Open::Text(_)) {
                    self.close(guards, found, out)?;
                    self.open = Open::Text(Flow::default());
                    self.begin();
                }
                if let Open::Text(flow) = &mut self.open {
                    let text = guards.more(flow, more, found)?;
                    self.say(&text);
                    out.extend((!text.is_empty()).then_some(Event::Text(text)));
                }
            }
            Event::Thinking(more) => {
                if !matches!(self.open, Open::Thinking(_)) {
                    self.close(guards, found, out)?;
                    self.open = Open::Thinking(Flow::default());
                    self.begin();
                }
                if let Open::Thinking(flow) = &mut self.open {
                    let text = guards.more(flow, more, found)?;
                    self.say(&text);
                    out.extend((!text.is_empty()).then_some(Event::Thinking(text)));
                }
            }
            Event::Arguments(more) => {
                if !matches!(self.open, Open::Arguments(_)) {
                    self.close(guards, found, out)?;
                    self.open = Open::Arguments(String::new());
                }
                if let Open::Arguments(text) = &mut self.open {
                    if text.len() + more.len() > LONGEST_ARGUMENTS {
                        return Err(Stopped::TooLong);
                    }
                    text.push_str(&more);
                }
                if !guards.change(Side::Response) {
                    out.push(Event::Arguments(more));
                }
            }
            // Says nothing, and may come at any time.
            Event::Usage(_) => out.push(event),
            Event::Start { .. }
            | Event::Signature(_)
            | Event::Redacted(_)
            | Event::ToolCall { .. }
            | Event::Stop(_) => {
                self.close(guards, found, out)?;
                out.push(event);
            }
        }
        Ok(())
    }

    /// What is left of the block that was under way.
    ///
    /// # Errors
    /// The answer may not go on.
    pub fn close(
        &mut self,
        guards: &Guards,
        found: &mut Found,
        out: &mut Vec<Event>,
    ) -> Result<(), Stopped> {
        match std::mem::take(&mut self.open) {
            Open::Nothing => {}
            Open::Text(mut flow) => {
                let text = guards.end(&mut flow, found)?;
                self.say(&text);
                out.extend((!text.is_empty()).then_some(Event::Text(text)));
            }
            Open::Thinking(mut flow) => {
                let text = guards.end(&mut flow, found)?;
                self.say(&text);
                out.extend((!text.is_empty()).then_some(Event::Thinking(text)));
            }
            Open::Arguments(mut text) => {
                arguments(guards, &mut text, found)?;
                self.begin();
                self.say(&text);
                // What is only reported has gone out already.
                if guards.change(Side::Response) {
                    out.push(Event::Arguments(text));
                }
            }
        }
        Ok(())
    }
}

/// What a tool is told, whole.
///
/// # Errors
/// A guard blocks it.
pub fn arguments(guards: &Guards, text: &mut String, found: &mut Found) -> Result<(), Blocked> {
    let mut walk = Walk::new(guards, Side::Response);
    walk.found = *found;
    let outcome = walk.arguments(text);
    *found = walk.found;
    outcome
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::llm::{
        chat::{Fold, Part, Reason, Response, Stop, ToolCall},
        guard::{Action, tests::rule},
    };

    fn guards() -> Guards {
        let cards = rule("cards", r"\b(?:\d[ -]?){4,6}\b", Action::Mask);
        Guards::new(vec![
            cards,
            rule("seen", "a", Action::Report),
            rule("bad", "bad", Action::Block),
        ])
    }

    fn run(events: Vec<Event>) -> Result<Vec<Event>, Stopped> {
        let (guards, mut found) = (guards(), Found::default());
        let (mut stage, mut out) = (Events::default(), Vec::new());
        for event in events {
            stage.push(&guards, event, &mut found, &mut out)?;
        }
        stage.close(&guards, &mut found, &mut out)?;
        Ok(out)
    }

    #[test]
    fn what_a_tool_is_told_goes_out_whole_and_masked() {
        let call = Event::ToolCall { id: "1".into(), name: "n".into(), signature: None };
        let piece = |text: &str| Event::Arguments(text.to_owned());
        let stop = Event::Stop(Stop::default());
        let events = vec![
            Event::Text("12".into()),
            Event::Text("34".into()),
            call.clone(),
            piece("{\"n\":12"),
            piece("34,\"t\":\"\\u0031"),
            piece("234\"}"),
            stop.clone(),
        ];
        let expected = vec![
            Event::Text("[cards]".into()),
            call.clone(),
            piece("{\"n\":\"[cards]\",\"t\":\"[cards]\"}"),
            stop.clone(),
        ];
        assert_eq!(run(events), Ok(expected));
        let split = vec![call, piece("{\"n\":\"b"), piece("ad\"}"), stop];
        assert_eq!(run(split), Err(Stopped::Blocked(Blocked(2))));
    }

    fn part() -> impl Strategy<Value = Part> {
        let text = "(12 ?34|b?ad|[a1 ]){1,6}";
        prop_oneof![
            text.prop_map(Part::Text),
            text.prop_map(|text| Part::Thinking { text, signature: Some("s".into()) }),
            text.prop_map(|text| {
                let arguments = json!({"t": text, "n": 12345, &text: [1]});
                Part::ToolCall(ToolCall {
                    id: "1".into(),
                    name: "n".into(),
                    arguments: arguments.as_object().cloned().unwrap_or_default(),
                    signature: None,
                })
            }),
        ]
    }

    /// The same answer in smaller pieces.
    fn cut(events: Vec<Event>, sizes: &[usize]) -> Vec<Event> {
        let mut sizes = sizes.iter().cycle();
        let mut out = Vec::new();
        for event in events {
            let (make, text): (fn(String) -> Event, String) = match event {
                Event::Text(text) => (Event::Text, text),
                Event::Thinking(text) => (Event::Thinking, text),
                Event::Arguments(text) => (Event::Arguments, text),
                other => {
                    out.push(other);
                    continue;
                }
            };
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let at = (*sizes.next().unwrap()).min(rest.len());
                out.push(make(rest[..at].to_owned()));
                rest = &rest[at..];
            }
        }
        out
    }

    proptest! {
        #[test]
        fn an_answer_is_guarded_the_same_however_it_streams(
            parts in proptest::collection::vec(part(), 0..5),
            sizes in proptest::collection::vec(1_usize..9, 1..6),
        ) {
            let stop = Stop { reason: Reason::End, ..Stop::default() };
            let answer = Response { parts, stop, ..Response::default() };
            let fold = |events: Result<Vec<Event>, Stopped>| events.map(|events| {
                let mut fold = Fold::default();
                events.into_iter().for_each(|it| fold.push(it));
                fold.finish()
            });
            let whole = fold(run(answer.clone().events()));
            let pieces = fold(run(cut(answer.events(), &sizes)));
            prop_assert_eq!(pieces, whole);
        }
    }
}
