//! A stream on its way from a provider to a client: translated event by event, or passed on as it came.
use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::HeaderValue;

use super::{
    asked::Answer,
    leg::Leg,
    target::{Trouble, Try},
};
use crate::{
    flow::clock,
    llm::{
        Api, Endpoint, Failure,
        chat::{self, Event},
        names::Names,
        recall::{Keeping, Memory},
        seal::Tag,
        split::Splitter,
        sse::Frame,
        stream::{Decoder, Encoder, Framing, Manner, broken},
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
    has_content: bool,
    is_ended: bool,
    /// The client's.
    api: Api,
    is_list: bool,
}

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
    keeping: Keeping,
    memory: Arc<Memory>,
    owner: Box<str>,
    /// Bytes that came.
    length: usize,
}

impl Translation {
    fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<bool, Failure> {
        self.length += frame.raw.len();
        if self.length > LONGEST {
            return Err(broken("the provider's answer is too long"));
        }
        self.decoder.read(frame, &mut self.events)?;
        let mut has_content = false;
        for mut event in self.events.drain(..) {
            has_content |= event.is_content();
            if let Event::Usage(used) = event {
                self.usage = Some(used);
            }
            self.tag.mark_event(&mut event);
            self.names.restore_event(&mut event);
            self.keeping.see(&event);
            self.encoder.push(event, out);
        }
        Ok(has_content)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.decoder.finish()?;
        let now = clock::nanos(Instant::now());
        std::mem::take(&mut self.keeping).finish(&self.memory, &self.owner, now);
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
                encoder: Encoder::new(api, manner),
                events: Vec::new(),
                usage: None,
                keeping: Keeping::default(),
                memory: asked.memory.clone(),
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
        let (splitter, out) = (Splitter::new(dialect), Vec::new());
        Self { leg, splitter, way, out, has_content: false, is_ended: false, api, is_list }
    }

    /// Reads up to the first content. Until then nothing was said to the client.
    pub async fn begin(&mut self) -> Result<(), Box<Trouble>> {
        while !self.has_content && !self.is_ended {
            self.step().await?;
        }
        Ok(())
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
                    self.frame(&frame).map_err(Trouble::in_stream)?;
                }
                Ok(())
            }
            Ok(None) => {
                if let Some(frame) = self.splitter.finish() {
                    self.frame(&frame).map_err(Trouble::in_stream)?;
                }
                self.end().map_err(Trouble::in_stream)
            }
            Err(error) => Err(Trouble::of_error(&error)),
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate(it) => self.has_content |= it.frame(frame, &mut self.out)?,
            Way::Pass { watch, framing, hides_usage } => {
                let seen = watch.see(frame)?;
                self.has_content |= seen.is_content;
                if !(*hides_usage && seen.is_usage) {
                    framing.pass(frame, &mut self.out);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate(it) => it.finish(&mut self.out)?,
            Way::Pass { watch, framing, .. } => {
                if !watch.is_over() {
                    return Err(broken("the provider's stream ended before its answer did"));
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
        match &mut self.way {
            Way::Translate(it) => it.encoder.fail(failure, id, &mut out),
            Way::Pass { watch, framing, .. } => {
                framing.fail(self.api, failure, (id, watch.seen()), &mut out);
            }
        }
        out.into()
    }

    #[must_use]
    pub fn usage(&self) -> Option<chat::Usage> {
        match &self.way {
            Way::Translate(it) => it.usage,
            Way::Pass { watch, .. } => watch.usage(),
        }
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
