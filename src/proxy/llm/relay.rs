//! A stream on its way from a provider to a client: translated event by event, or passed on as it came.
use bytes::Bytes;
use http::HeaderValue;

use super::{
    guard::{self, Who},
    leg::Leg,
    target::{Trouble, Try},
};
use crate::{
    flow::clock,
    llm::{
        Api, Endpoint, Failure,
        chat::{self, Event},
        endpoint::Pass,
        guard::{
            Found, Guards, Side,
            events::{Events, Stopped},
            frames::{Frames, Words},
        },
        prompt, seal,
        sse::{Frame, Parser, TooLong},
        stream::{Decoder, Encoder, Framing, Manner, broken},
        watch::Watch,
    },
    upstream::Picked,
};

pub struct Relay {
    leg: Leg,
    parser: Parser,
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
    Translate {
        vendor: Api,
        decoder: Decoder,
        encoder: Box<Encoder>,
        events: Vec<Event>,
        usage: Option<chat::Usage>,
    },
    Pass {
        watch: Box<Watch>,
        framing: Framing,
        hides_usage: bool,
    },
}

impl Relay {
    pub fn new(leg: Leg, attempt: &Try<'_>) -> Self {
        let asked = attempt.asked;
        let (api, is_list) = (asked.call.api, asked.call.is_list);
        let way = if attempt.outgoing.is_translated {
            let vendor = attempt.target.provider.dialect.api();
            let manner = Manner {
                created: clock::Now::read().unix.as_secs(),
                wants_usage: asked.wants_usage,
                is_list,
            };
            Way::Translate {
                vendor,
                decoder: Decoder::new(vendor),
                encoder: Box::new(match asked.prompt {
                    Some(prompt) => Encoder::Prompt(prompt::stream::Encoder::new(prompt.clone())),
                    None => Encoder::new(api, manner),
                }),
                events: Vec::new(),
                usage: None,
            }
        } else {
            let is_responses = asked.call.endpoint == Endpoint::Pass(Pass::Responses);
            let watch = if is_responses { Watch::responses() } else { Watch::new(api) };
            let hides_usage = api == Api::OpenAi && !is_responses && !asked.wants_usage;
            Way::Pass { watch: Box::new(watch), framing: Framing::new(is_list), hides_usage }
        };
        let guarding = attempt.is_guarded().then(|| Box::new(Guarding::new(attempt, api)));
        let (parser, out) = (Parser::default(), Vec::new());
        let (has_content, is_ended) = (false, false);
        Self { leg, parser, way, out, guarding, has_content, is_ended, api, is_list }
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
        let usage = self.usage();
        match &mut self.guarding {
            Some(guarding) => match guarding.stopped.take() {
                Some(stopped) => Trouble::blocked(&guarding.guards, stopped, usage, guarding.found),
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
                self.parser.push(&chunk);
                loop {
                    match self.parser.take() {
                        Ok(Some(frame)) => self.frame(&frame).map_err(|why| self.trouble(why))?,
                        Ok(None) => return Ok(()),
                        Err(TooLong) => {
                            let why = "an event of the provider's stream is too long";
                            return Err(Trouble::in_stream(broken(why)));
                        }
                    }
                }
            }
            Ok(None) => {
                if let Some(frame) = self.parser.finish() {
                    self.frame(&frame).map_err(|why| self.trouble(why))?;
                }
                self.end().map_err(|why| self.trouble(why))
            }
            Err(error) => Err(Trouble::of_error(&error)),
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate { vendor, decoder, encoder, events, usage } => {
                decoder.read(frame, events)?;
                if let Some(guarding) = &mut self.guarding {
                    guarding.events(events, false)?;
                }
                for mut event in events.drain(..) {
                    self.has_content |= event.is_content();
                    if let Event::Usage(used) = event {
                        *usage = Some(used);
                    }
                    seal::mark_event(*vendor, &mut event);
                    encoder.push(event, &mut self.out);
                }
            }
            Way::Pass { watch, framing, hides_usage } => {
                let seen = watch.see(frame)?;
                self.has_content |= seen.is_content;
                let is_hidden = *hides_usage && seen.is_usage;
                if let Some(guarding) = &mut self.guarding {
                    let frames = guarding.frame(frame)?;
                    let count = frames.len() - usize::from(is_hidden);
                    frames.iter().take(count).for_each(|it| framing.pass(it, &mut self.out));
                } else if !is_hidden {
                    framing.pass(frame, &mut self.out);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate { vendor, decoder, encoder, events, .. } => {
                decoder.finish()?;
                if let Some(guarding) = &mut self.guarding {
                    guarding.events(events, true)?;
                }
                for mut event in events.drain(..) {
                    seal::mark_event(*vendor, &mut event);
                    encoder.push(event, &mut self.out);
                }
                if let Encoder::Prompt(encoder) = &**encoder {
                    encoder.check()?;
                }
                encoder.finish(&mut self.out);
            }
            Way::Pass { watch, framing, .. } => {
                if !watch.is_over() {
                    return Err(broken("the provider's stream ended before its answer did"));
                }
                if let Some(guarding) = &mut self.guarding {
                    guarding.last()?.iter().for_each(|it| framing.pass(it, &mut self.out));
                }
                framing.finish(&mut self.out);
            }
        }
        self.is_ended = true;
        Ok(())
    }

    /// What the client is told when the stream failed: its last event.
    pub fn fail(&mut self, failure: &Failure, request_id: Option<&HeaderValue>) -> Bytes {
        let id = request_id.and_then(|it| it.to_str().ok());
        let mut out = std::mem::take(&mut self.out);
        if let Way::Translate { encoder, .. } = &self.way
            && let Encoder::Prompt(encoder) = &**encoder
        {
            encoder.fail(failure, &mut out);
            return out.into();
        }
        let mut own = Framing::new(self.is_list);
        let framing = match &mut self.way {
            Way::Translate { encoder, .. } => encoder.framing().unwrap_or(&mut own),
            Way::Pass { framing, .. } => framing,
        };
        framing.fail(self.api, failure, id, &mut out);
        out.into()
    }

    #[must_use]
    pub fn usage(&self) -> Option<chat::Usage> {
        match &self.way {
            Way::Translate { usage, .. } => *usage,
            Way::Pass { watch, .. } => watch.usage(),
        }
    }

    #[must_use]
    pub const fn is_list(&self) -> bool {
        self.is_list
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
        let is_responses = attempt.asked.call.endpoint == Endpoint::Pass(Pass::Responses);
        let words = if is_responses { Words::Responses } else { Words::Of(api) };
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
