//! A stream on its way from a provider to a client: translated event by event, or passed on as it came.
use bytes::Bytes;
use http::HeaderValue;

use super::{
    leg::Leg,
    target::{Trouble, Try},
};
use crate::{
    flow::clock,
    llm::{
        Api, Endpoint, Failure,
        chat::{self, Event},
        endpoint::Pass,
        seal,
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
    has_content: bool,
    is_ended: bool,
    /// The client's.
    api: Api,
    is_list: bool,
}

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
                encoder: Box::new(Encoder::new(api, manner)),
                events: Vec::new(),
                usage: None,
            }
        } else {
            let is_responses = asked.call.endpoint == Endpoint::Pass(Pass::Responses);
            let watch = if is_responses { Watch::responses() } else { Watch::new(api) };
            let hides_usage = api == Api::OpenAi && !is_responses && !asked.wants_usage;
            Way::Pass { watch: Box::new(watch), framing: Framing::new(is_list), hides_usage }
        };
        let (parser, out) = (Parser::default(), Vec::new());
        Self { leg, parser, way, out, has_content: false, is_ended: false, api, is_list }
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
                self.parser.push(&chunk);
                loop {
                    match self.parser.take() {
                        Ok(Some(frame)) => self.frame(&frame).map_err(Trouble::in_stream)?,
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
                    self.frame(&frame).map_err(Trouble::in_stream)?;
                }
                self.end().map_err(Trouble::in_stream)
            }
            Err(error) => Err(Trouble::of_error(&error)),
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate { vendor, decoder, encoder, events, usage } => {
                decoder.read(frame, events)?;
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
                if !(*hides_usage && seen.is_usage) {
                    framing.pass(frame, &mut self.out);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        match &mut self.way {
            Way::Translate { decoder, encoder, .. } => {
                decoder.finish()?;
                encoder.finish(&mut self.out);
            }
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
