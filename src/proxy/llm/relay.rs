//! A stream on its way from a provider to a client: translated event by event, or passed on as it came.
use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::HeaderValue;

use super::{
    asked::Answer,
    guard::{self, Who},
    leg::Leg,
    target::Try,
    trouble::{Spent, Trouble},
};
use crate::{
    flow::clock,
    llm::{
        Api, Endpoint, Failure,
        chat::{self, Event},
        estimate::Tally,
        guard::{
            Found, Guards, Side,
            events::{Events, Stopped},
            frames::{Frames, Words},
        },
        names::Names,
        prompt,
        seal::Tag,
        split::Splitter,
        sse::Frame,
        stream::{Decoder, Encoder, Framing, Manner, broken},
        thoughts::{Keeping, Memory},
        watch::Watch,
    },
    upstream::Picked,
};

/// A stream that is translated may be kept in part until its end: what that may take.
const LONGEST: usize = 64 << 20;

pub struct Relay {
    leg: Leg,
    splitter: Splitter,
    way: Way,
    /// What the client is to get next.
    out: Vec<u8>,
    guarding: Option<Box<Guarding>>,
    has_content: bool,
    is_ended: bool,
    /// The client's.
    api: Api,
    is_list: bool,
}

/// What looks at it on its way.
struct Guarding {
    guards: Guards,
    events: Events,
    frames: Frames,
    found: Found,
    stopped: Option<Stopped>,
    /// Until all of it was shown to somebody, the client gets nothing.
    is_held: bool,
}

/// Bytes of a stream that is held, at most.
const HELD: usize = 16 << 20;

/// How it goes on.
enum Way {
    Translate(Box<Translation>),
    Pass { watch: Box<Watch>, framing: Framing, hides_usage: bool },
}

/// From a provider's words into a client's.
struct Translation {
    tag: Tag,
    names: Names,
    decoder: Decoder,
    encoder: Encoder,
    events: Vec<Event>,
    usage: Option<chat::Usage>,
    /// What the model has said, should nobody say how much that was.
    said: Tally,
    keeping: Keeping,
    thoughts: Arc<Memory>,
    owner: Box<str>,
    /// Bytes that came.
    length: usize,
}

impl Translation {
    fn frame(
        &mut self,
        frame: &Frame,
        guarding: Option<&mut Guarding>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Failure> {
        self.length += frame.raw.len();
        if self.length > LONGEST {
            return Err(broken("the provider's answer is too long"));
        }
        let before = self.events.len();
        let read = self.decoder.read(frame, &mut self.events);
        // Before the guards: what they keep back or change was said all the same.
        for event in self.events.iter().skip(before) {
            self.said.see(event);
            if let Event::Usage(used) = event {
                self.usage = Some(*used);
            }
        }
        read?;
        if let Some(guarding) = guarding {
            guarding.events(&mut self.events, false)?;
        }
        Ok(self.write(out))
    }

    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let mut has_content = false;
        for mut event in self.events.drain(..) {
            has_content |= event.is_content();
            self.tag.mark_event(&mut event);
            self.names.restore_event(&mut event);
            self.keeping.see(&event);
            self.encoder.push(event, out);
        }
        has_content
    }

    fn finish(
        &mut self,
        guarding: Option<&mut Guarding>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if let Some(guarding) = guarding {
            guarding.events(&mut self.events, true)?;
            self.write(out);
        }
        if let Encoder::Prompt(encoder) = &self.encoder {
            encoder.check()?;
        }
        let now = clock::nanos(Instant::now());
        std::mem::take(&mut self.keeping).finish(&self.thoughts, &self.owner, now);
        self.encoder.finish(out);
        Ok(())
    }
}

impl Relay {
    pub fn new(leg: Leg, attempt: &Try<'_>) -> Self {
        let asked = attempt.asked;
        let (api, is_list) = (asked.call.api, asked.call.is_list);
        let dialect = attempt.target.provider.dialect;
        let way = if let Answer::Chat(names) = &attempt.outgoing.answer {
            let manner = Manner {
                created: clock::Now::read().unix.as_secs(),
                wants_usage: asked.wants_usage,
                is_list,
            };
            Way::Translate(Box::new(Translation {
                tag: attempt.target.provider.tag.clone(),
                names: names.clone(),
                decoder: Decoder::new(dialect),
                encoder: match asked.prompt {
                    Some(prompt) => Encoder::Prompt(prompt::stream::Encoder::new(prompt.clone())),
                    None => Encoder::new(api, manner),
                },
                events: Vec::new(),
                usage: None,
                said: Tally::new(),
                keeping: Keeping::default(),
                thoughts: asked.thoughts.clone(),
                owner: asked.owner.into(),
                length: 0,
            }))
        } else {
            let watch = match (asked.call.endpoint, api) {
                (Endpoint::Pass(_), _) => Watch::other(),
                (_, Api::Responses) => Watch::responses(),
                _ => Watch::new(dialect),
            };
            let is_chat = api == Api::OpenAi && asked.call.endpoint == Endpoint::Generate;
            let hides_usage = is_chat && !asked.wants_usage;
            let framing = Framing::of(api, is_list);
            Way::Pass { watch: Box::new(watch), framing, hides_usage }
        };
        let guarding = attempt.is_guarded().then(|| Box::new(Guarding::new(attempt, api)));
        let (splitter, out) = (Splitter::new(dialect), Vec::new());
        let (has_content, is_ended) = (false, false);
        Self { leg, splitter, way, out, guarding, has_content, is_ended, api, is_list }
    }

    /// Reads up to the first content. Until then nothing was said to the client.
    pub async fn begin(&mut self, who: &Who) -> Result<(), Box<Trouble>> {
        let is_held = self.guarding.as_ref().is_some_and(|it| it.is_held);
        while (is_held || !self.has_content) && !self.is_ended {
            self.step().await?;
            if is_held && self.out.len() > HELD {
                return Err(Trouble::in_stream(broken("the answer is too long to be looked at")));
            }
        }
        if let Some(guarding) = self.guarding.as_mut().filter(|_| is_held) {
            let mut texts = guarding.events.said();
            texts.extend(guarding.frames.said());
            let Guarding { guards, found, stopped, .. } = &mut **guarding;
            let told = guard::ask(guards, Side::Response, texts, who, found).await;
            if let Err(why) = told {
                *stopped = Some(why);
                return Err(self.trouble(broken("a guard says no")));
            }
        }
        Ok(())
    }

    /// Why the stream does not go on: a guard may have said so.
    fn trouble(&mut self, failure: Failure) -> Box<Trouble> {
        let spent = self.spent();
        match &mut self.guarding {
            Some(guarding) => match guarding.stopped.take() {
                Some(stopped) => Trouble::blocked(&guarding.guards, stopped, spent, guarding.found),
                None => Trouble::in_stream(failure),
            },
            None => Trouble::in_stream(failure),
        }
    }

    /// The guards that found something.
    pub fn found(&self) -> Found {
        self.guarding.as_ref().map(|it| it.found).unwrap_or_default()
    }

    /// The next bytes for the client; none when all were given.
    ///
    /// # Errors
    /// The stream failed. What came before stays said.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Box<Trouble>> {
        while self.out.is_empty() && !self.is_ended {
            self.step().await?;
        }
        let out = std::mem::take(&mut self.out);
        Ok((!out.is_empty()).then(|| out.into()))
    }

    async fn step(&mut self) -> Result<(), Box<Trouble>> {
        match self.leg.read().await {
            Ok(Some(chunk)) => {
                self.splitter.push(&chunk);
                while let Some(frame) = self.splitter.take().map_err(Trouble::in_stream)? {
                    self.frame(&frame).map_err(|why| self.trouble(why))?;
                }
                Ok(())
            }
            Ok(None) => {
                if let Some(frame) = self.splitter.finish() {
                    self.frame(&frame).map_err(|why| self.trouble(why))?;
                }
                self.end().map_err(|why| self.trouble(why))
            }
            Err(error) => Err(Trouble::of_error(&error)),
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate(it) => {
                let guarding = self.guarding.as_deref_mut();
                self.has_content |= it.frame(frame, guarding, &mut self.out)?;
            }
            Way::Pass { watch, framing, hides_usage } => {
                let seen = watch.see(frame)?;
                self.has_content |= seen.is_content;
                let is_hidden = *hides_usage && seen.is_usage;
                if let Some(guarding) = &mut self.guarding {
                    let frames = guarding.frame(frame)?;
                    let count = frames.len().saturating_sub(usize::from(is_hidden));
                    frames.iter().take(count).for_each(|it| framing.pass(it, &mut self.out));
                } else if !is_hidden {
                    framing.pass(frame, &mut self.out);
                }
            }
        }
        Ok(())
    }

    /// The answer came whole, even where what follows keeps it back.
    fn end(&mut self) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate(it) => {
                it.decoder.finish()?;
                self.is_ended = true;
                it.finish(self.guarding.as_deref_mut(), &mut self.out)?;
            }
            Way::Pass { watch, framing, .. } => {
                if !watch.is_over() {
                    return Err(broken("the provider's stream ended before its answer did"));
                }
                self.is_ended = true;
                if let Some(guarding) = &mut self.guarding {
                    guarding.last()?.iter().for_each(|it| framing.pass(it, &mut self.out));
                }
                framing.finish(&mut self.out);
            }
        }
        Ok(())
    }

    /// What the client is told when the stream failed: its last event.
    pub fn fail(&mut self, failure: &Failure, request_id: Option<&HeaderValue>) -> Bytes {
        let id = request_id.and_then(|it| it.to_str().ok());
        let mut out = std::mem::take(&mut self.out);
        match &mut self.way {
            Way::Translate(it) => it.encoder.fail(failure, id, &mut out),
            Way::Pass { watch, framing, .. } => {
                framing.fail(self.api, failure, (id, watch.seen()), &mut out);
            }
        }
        out.into()
    }

    /// What it used so far, as far as is known.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let (usage, said) = match &self.way {
            Way::Translate(it) => (it.usage, it.said),
            Way::Pass { watch, .. } => (watch.usage(), watch.said()),
        };
        Spent { usage, said, is_whole: self.is_ended }
    }

    /// Of what the client gets.
    #[must_use]
    pub const fn media_type(&self) -> &'static str {
        match self.api {
            Api::Ollama => "application/x-ndjson",
            _ if self.is_list => "application/json",
            _ => "text/event-stream",
        }
    }

    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// All was read.
    pub async fn release(self, connector: &pingora::connectors::http::Connector) -> Picked {
        self.leg.release(connector).await
    }
}

impl Guarding {
    fn new(attempt: &Try<'_>, api: Api) -> Self {
        let words = match attempt.asked.call.endpoint {
            Endpoint::Pass(_) => Words::Other,
            _ => Words::Of(api),
        };
        let is_held = attempt.is_held();
        Self {
            guards: attempt.guards.clone(),
            events: Events::new(is_held),
            frames: Frames::new(words, is_held),
            found: Found::default(),
            stopped: None,
            is_held,
        }
    }

    /// Leaves of the events those that may go out.
    fn events(&mut self, events: &mut Vec<Event>, is_last: bool) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(events.len());
        let (guards, found) = (&self.guards, &mut self.found);
        let mut outcome =
            events.drain(..).try_for_each(|it| self.events.push(guards, it, found, &mut out));
        if outcome.is_ok() && is_last {
            outcome = self.events.close(guards, found, &mut out);
        }
        *events = out;
        self.settle(outcome)
    }

    fn frame(&mut self, frame: &Frame) -> Result<Vec<Frame>, Failure> {
        let mut out = Vec::new();
        let outcome = self.frames.push(&self.guards, frame, &mut self.found, &mut out);
        self.settle(outcome).map(|()| out)
    }

    fn last(&mut self) -> Result<Vec<Frame>, Failure> {
        let mut out = Vec::new();
        let outcome = self.frames.finish(&self.guards, &mut self.found, &mut out);
        self.settle(outcome).map(|()| out)
    }

    fn settle(&mut self, outcome: Result<(), Stopped>) -> Result<(), Failure> {
        outcome.map_err(|stopped| {
            self.stopped = Some(stopped);
            broken("a guard says no")
        })
    }
}

/// Counted when nothing more can be found.
impl Drop for Guarding {
    fn drop(&mut self) {
        self.guards.count(Side::Response, self.found);
    }
}
