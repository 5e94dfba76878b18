//! Signatures for clients that do not send them back: what a model thought before it called a tool, kept
//! for a while by who asked and by the call, within a bound.
use std::{sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};
use sha2::{Digest, Sha256};

use super::chat::{Event, Part, Request, Response, Role, ToolCall};

/// What all that is kept takes, at most.
const MOST_BYTES: u64 = 32 << 20;
/// What one answer's thinking may take: a longer one is not kept.
const LONGEST: usize = 256 << 10;
/// A conversation that rests for longer begins to think anew.
const LIFETIME: Duration = Duration::from_secs(3600);

type Key = [u8; 16];

#[derive(Clone, Debug)]
struct Kept {
    /// Monotonic nanoseconds.
    until: u64,
    /// What was thought before the call, signed.
    thoughts: Arc<[Part]>,
    /// Of the call itself.
    signature: Option<Arc<str>>,
    weight: u64,
}

#[derive(Clone, Copy, Debug)]
struct Weight;

impl Weighter<Key, Kept> for Weight {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        kept.weight
    }
}

/// For all providers: what one has signed has its tag already.
#[derive(Debug)]
pub struct Memory(Cache<Key, Kept, Weight>);

impl Default for Memory {
    fn default() -> Self {
        Self(Cache::with_weighter(4096, MOST_BYTES, Weight))
    }
}

fn key(owner: &str, call: &str) -> Key {
    let mut hash = Sha256::new();
    hash.update((owner.len() as u64).to_le_bytes());
    hash.update(owner);
    hash.update(call);
    let hash: [u8; 32] = hash.finalize().into();
    let mut key = [0; 16];
    key.copy_from_slice(hash.first_chunk::<16>().unwrap_or(&[0; 16]));
    key
}

impl Memory {
    /// Gives back to a conversation what its client left out.
    pub fn recall(&self, owner: &str, request: &mut Request, now_nanos: u64) {
        for message in request.messages.iter_mut().filter(|it| it.role == Role::Assistant) {
            let mut thoughts: Option<Arc<[Part]>> = None;
            for part in &mut message.parts {
                let Part::ToolCall(call) = part else { continue };
                let Some(kept) = self.0.get(&key(owner, &call.id)) else { continue };
                if kept.until <= now_nanos {
                    continue;
                }
                if call.signature.is_none() {
                    call.signature = kept.signature.as_deref().map(str::to_owned);
                }
                thoughts.get_or_insert(kept.thoughts);
            }
            let thinks = message
                .parts
                .iter()
                .any(|it| matches!(it, Part::Thinking { .. } | Part::Redacted(_)));
            if let Some(thoughts) = thoughts.filter(|_| !thinks) {
                message.parts.splice(0..0, thoughts.iter().cloned());
            }
        }
    }
}

/// What is worth keeping of one answer, as it comes.
#[derive(Debug, Default)]
pub struct Keeping {
    thoughts: Vec<Part>,
    calls: Vec<(String, Option<String>)>,
    bytes: usize,
}

impl Keeping {
    pub fn see(&mut self, event: &Event) {
        if self.bytes > LONGEST {
            return;
        }
        match event {
            Event::Thinking(more) => {
                self.bytes += more.len();
                match self.thoughts.last_mut() {
                    Some(Part::Thinking { text, signature: None }) => text.push_str(more),
                    _ => self.think(more.clone(), None),
                }
            }
            Event::Signature(it) => {
                self.bytes += it.len();
                match self.thoughts.last_mut() {
                    Some(Part::Thinking { signature, .. }) => *signature = Some(it.clone()),
                    _ => self.think(String::new(), Some(it.clone())),
                }
            }
            Event::Redacted(data) => {
                self.bytes += data.len();
                self.thoughts.push(Part::Redacted(data.clone()));
            }
            Event::ToolCall { id, signature, .. } => self.call(id, signature.as_ref()),
            _ => {}
        }
    }

    fn think(&mut self, text: String, signature: Option<String>) {
        self.thoughts.push(Part::Thinking { text, signature });
    }

    fn call(&mut self, id: &str, signature: Option<&String>) {
        self.bytes += id.len() + signature.map_or(0, String::len);
        self.calls.push((id.to_owned(), signature.cloned()));
    }

    /// Of an answer that is whole.
    #[must_use]
    pub fn of(response: &Response) -> Self {
        let mut keeping = Self::default();
        for part in &response.parts {
            match part {
                Part::Thinking { text, signature } => {
                    keeping.bytes += text.len() + signature.as_ref().map_or(0, String::len);
                    keeping.think(text.clone(), signature.clone());
                }
                Part::Redacted(data) => {
                    keeping.bytes += data.len();
                    keeping.thoughts.push(Part::Redacted(data.clone()));
                }
                Part::ToolCall(ToolCall { id, signature, .. }) => {
                    keeping.call(id, signature.as_ref());
                }
                _ => {}
            }
        }
        keeping
    }

    /// The answer is whole: keeps it for its owner, if anything in it is signed.
    pub fn finish(self, memory: &Memory, owner: &str, now_nanos: u64) {
        let is_signed =
            |it: &Part| matches!(it, Part::Redacted(_) | Part::Thinking { signature: Some(_), .. });
        if self.bytes > LONGEST || self.calls.is_empty() {
            return;
        }
        let mut thoughts = self.thoughts;
        thoughts.retain(is_signed);
        if thoughts.is_empty() && self.calls.iter().all(|(_, signature)| signature.is_none()) {
            return;
        }
        let lifetime = u64::try_from(LIFETIME.as_nanos()).unwrap_or(u64::MAX);
        let until = now_nanos.saturating_add(lifetime);
        let thoughts: Arc<[Part]> = thoughts.into();
        let shared = self.bytes / self.calls.len().max(1);
        for (id, signature) in self.calls {
            let weight = 256 + shared as u64 + signature.as_ref().map_or(0, String::len) as u64;
            let signature = signature.map(Arc::from);
            let kept = Kept { until, thoughts: thoughts.clone(), signature, weight };
            memory.0.insert(key(owner, &id), kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::chat::{Message, Object};

    fn call(signature: Option<&str>) -> Part {
        Part::ToolCall(ToolCall {
            id: "c1".to_owned(),
            name: "f".to_owned(),
            arguments: Object::new(),
            signature: signature.map(str::to_owned),
        })
    }

    fn thought(signature: Option<&str>) -> Part {
        Part::Thinking { text: "t".to_owned(), signature: signature.map(str::to_owned) }
    }

    fn recalled(memory: &Memory, owner: &str, parts: Vec<Part>, now: u64) -> Vec<Part> {
        let messages = vec![Message { role: Role::Assistant, parts }];
        let mut request = Request { messages, ..Request::default() };
        memory.recall(owner, &mut request, now);
        request.messages.remove(0).parts
    }

    #[test]
    fn what_a_client_left_out_comes_back_for_a_while_and_to_nobody_else() {
        let memory = Memory::default();
        let parts = vec![thought(Some("s")), thought(None), call(Some("g"))];
        let response = Response { parts, ..Response::default() };
        Keeping::of(&response).finish(&memory, "acme", 0);
        let full = [thought(Some("s")), call(Some("g"))];
        assert_eq!(recalled(&memory, "acme", vec![call(None)], 1), full);
        assert_eq!(recalled(&memory, "other", vec![call(None)], 1), [call(None)]);
        let late = u64::try_from(LIFETIME.as_nanos()).unwrap();
        assert_eq!(recalled(&memory, "acme", vec![call(None)], late), [call(None)]);
        // What the client did send stays.
        let own = vec![thought(Some("own")), call(Some("own"))];
        assert_eq!(recalled(&memory, "acme", own.clone(), 1), own);
    }

    #[test]
    fn a_stream_is_kept_as_the_whole_answer_is() {
        let parts = vec![thought(Some("s")), Part::Redacted("r".to_owned()), call(Some("g"))];
        let response = Response { parts, ..Response::default() };
        let memory = Memory::default();
        let mut keeping = Keeping::default();
        response.clone().events().iter().for_each(|it| keeping.see(it));
        keeping.finish(&memory, "acme", 0);
        assert_eq!(recalled(&memory, "acme", vec![call(None)], 1), response.parts);
    }

    #[test]
    fn nothing_is_kept_of_what_is_not_signed_or_too_long() {
        let kept = |parts: Vec<Part>| {
            let memory = Memory::default();
            Keeping::of(&Response { parts, ..Response::default() }).finish(&memory, "a", 0);
            memory.0.len()
        };
        assert_eq!(kept(vec![thought(None), call(None)]), 0);
        assert_eq!(kept(vec![thought(Some("s"))]), 0, "no call");
        assert_eq!(kept(vec![thought(Some("s")), call(None)]), 1);
        assert_eq!(kept(vec![thought(Some(&"s".repeat(LONGEST + 1))), call(None)]), 0);
    }

    #[test]
    fn all_that_is_kept_has_a_bound() {
        let memory = Memory::default();
        for index in 0..400 {
            let mut keeping = Keeping::of(&Response {
                parts: vec![thought(Some(&"s".repeat(200 << 10)))],
                ..Response::default()
            });
            keeping.call(&index.to_string(), None);
            keeping.finish(&memory, "a", 0);
        }
        assert!(memory.0.weight() <= MOST_BYTES, "{}", memory.0.weight());
        assert!(memory.0.len() > 50);
    }
}
