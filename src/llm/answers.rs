//! Answers that are given again: to the same question of the same consumer, or to one that means the same.
//! Only what was answered well and to its end is here, bounded by its weight.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::api::Api;

/// What an answer is found by.
pub type Digest = [u8; 32];

/// Parts of the memory that do not wait for each other.
const SHARDS: usize = 8;
/// What a place costs besides what is in it.
const PLACE: u64 = 256;
/// Questions in one conversation whose meaning is compared, at most: each is looked at.
const MOST_NEAR: usize = 128;

/// Of all of `parts`, length-prefixed: no other parts have the same.
#[must_use]
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A body in one form, whatever the order of its members and the white space between them.
///
/// # Errors
/// It is no JSON.
pub fn normalised(body: &[u8]) -> Result<Value, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    value.sort_all_objects();
    Ok(value)
}

/// An answer as a client of one API got it.
#[derive(Debug)]
pub struct Kept {
    pub content_type: HeaderValue,
    /// What the target could not be told.
    pub dropped: Option<HeaderValue>,
    pub body: Bytes,
    pub is_stream: bool,
    /// When it was given.
    pub at: Instant,
    pub until: Instant,
}

/// A question and what it means.
#[derive(Debug)]
struct Near {
    /// Of length 1.
    meaning: Box<[f32]>,
    answer: Digest,
    until: Instant,
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<Digest, Arc<Kept>> for ByWeight {
    fn weight(&self, _: &Digest, kept: &Arc<Kept>) -> u64 {
        PLACE.saturating_add(kept.body.len() as u64)
    }
}

impl Weighter<Digest, Arc<[Arc<Near>]>> for ByWeight {
    fn weight(&self, _: &Digest, all: &Arc<[Arc<Near>]>) -> u64 {
        let one = |it: &Arc<Near>| PLACE.saturating_add(it.meaning.len() as u64 * 4);
        all.iter().map(one).sum::<u64>().saturating_add(PLACE)
    }
}

/// What one model answered.
pub struct Memory {
    answers: sync::Cache<Digest, Arc<Kept>, ByWeight>,
    /// By the conversation before the question.
    near: sync::Cache<Digest, Arc<[Arc<Near>]>, ByWeight>,
    bytes: u64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

fn cache<T: Clone>(bytes: u64) -> Result<sync::Cache<Digest, T, ByWeight>, String>
where
    ByWeight: Weighter<Digest, T>,
{
    let options = OptionsBuilder::new()
        .shards(SHARDS)
        .estimated_items_capacity(usize::try_from(bytes / 4096).unwrap_or(usize::MAX))
        .weight_capacity(bytes)
        .build()
        .map_err(|why| why.to_string())?;
    let (hasher, life) = (DefaultHashBuilder::default(), sync::DefaultLifecycle::default());
    Ok(sync::Cache::with_options(options, ByWeight, hasher, life))
}

impl Memory {
    /// # Errors
    /// No memory can be had.
    pub fn new(bytes: u64) -> Result<Self, String> {
        // A meaning is as large as a short answer.
        Ok(Self { answers: cache(bytes / 4 * 3)?, near: cache(bytes / 4)?, bytes })
    }

    /// Bytes of the longest answer that is kept: one must not drive out all others.
    #[must_use]
    pub fn longest(&self) -> usize {
        usize::try_from(self.bytes / 32).unwrap_or(usize::MAX)
    }

    #[must_use]
    pub fn get(&self, question: &Digest, now: Instant) -> Option<Arc<Kept>> {
        let kept = self.answers.get(question)?;
        if now < kept.until {
            return Some(kept);
        }
        self.answers.remove(question);
        None
    }

    pub fn put(&self, question: Digest, kept: Kept) {
        if kept.body.len() <= self.longest() {
            self.answers.insert(question, Arc::new(kept));
        }
    }

    /// The answer to the question of this conversation that means most nearly the same, if that is near
    /// enough.
    #[must_use]
    pub fn near(
        &self,
        conversation: &Digest,
        meaning: &[f32],
        threshold: f32,
        now: Instant,
    ) -> Option<Arc<Kept>> {
        let all = self.near.get(conversation)?;
        let live = all.iter().filter(|it| now < it.until);
        let scored = live.map(|it| (alike(&it.meaning, meaning), it));
        let best = scored.max_by(|left, right| left.0.total_cmp(&right.0));
        let (score, near) = best?;
        if score < threshold {
            return None;
        }
        self.get(&near.answer, now)
    }

    /// Remembers what a question meant.
    pub fn note(&self, conversation: Digest, meaning: Box<[f32]>, answer: Digest, ttl: Duration) {
        let now = Instant::now();
        let known = self.near.get(&conversation);
        let known = known.iter().flat_map(|it| it.iter());
        let known = known.filter(|it| now < it.until && it.answer != answer);
        let mut all: Vec<Arc<Near>> = known.cloned().collect();
        let surplus = (all.len() + 1).saturating_sub(MOST_NEAR);
        all.drain(..surplus);
        all.push(Arc::new(Near { meaning, answer, until: now + ttl }));
        self.near.insert(conversation, all.into());
    }
}

/// A meaning of length 1; none of numbers that have no direction.
#[must_use]
pub fn unit(mut meaning: Vec<f32>) -> Option<Box<[f32]>> {
    let length = meaning.iter().map(|it| it * it).sum::<f32>().sqrt();
    if !length.is_finite() || length <= 0.0 {
        return None;
    }
    meaning.iter_mut().for_each(|it| *it /= length);
    Some(meaning.into())
}

/// The cosine of two meanings of length 1.
fn alike(left: &[f32], right: &[f32]) -> f32 {
    if left.len() != right.len() {
        return -1.0;
    }
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Takes the last thing that the user says out of a body, if that is text alone: what is left is the
/// conversation that it stands in.
#[must_use]
pub fn question(api: Api, body: &mut Value) -> Option<String> {
    let (list, member) = match api {
        Api::OpenAi | Api::Anthropic | Api::Ollama => ("messages", "content"),
        Api::Responses => return None,
        Api::Gemini => ("contents", "parts"),
    };
    let last = body.get_mut(list)?.as_array_mut()?.last_mut()?;
    if last.get("role").and_then(Value::as_str).is_some_and(|it| it != "user") {
        return None;
    }
    let said = match last.get_mut(member)? {
        Value::String(text) => std::mem::take(text),
        Value::Array(parts) => {
            let text = |part: &Value| {
                let part = part.as_object()?;
                let is_text = part.keys().all(|it| matches!(it.as_str(), "type" | "text"));
                part.get("text").filter(|_| is_text)?.as_str().map(str::to_owned)
            };
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            let texts = texts?;
            parts.clear();
            texts.join("\n")
        }
        _ => return None,
    };
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(body: &'static [u8], ttl: Duration) -> Kept {
        let now = Instant::now();
        Kept {
            content_type: HeaderValue::from_static("application/json"),
            dropped: None,
            body: Bytes::from_static(body),
            is_stream: false,
            at: now,
            until: now + ttl,
        }
    }

    #[test]
    fn no_two_questions_share_a_digest() {
        let of = |parts: &[&str]| digest(parts.iter().map(|it| it.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
    }

    #[test]
    fn a_body_has_one_form() {
        let of = |text: &str| normalised(text.as_bytes()).unwrap().to_string();
        assert_eq!(
            of(r#"{"b": {"d": 1, "c": [2]}, "a": "x"}"#),
            of(r#"{"a":"x","b":{"c":[2],"d":1}}"#)
        );
        assert_ne!(of(r#"{"a": [1, 2]}"#), of(r#"{"a": [2, 1]}"#));
        assert_ne!(of(r#"{"a": "1"}"#), of(r#"{"a": 1}"#));
    }

    #[test]
    fn an_answer_is_there_for_its_time_and_its_weight() {
        let memory = Memory::new(1 << 20).unwrap();
        let (minute, now) = (Duration::from_secs(60), Instant::now());
        memory.put([1; 32], kept(b"a", minute));
        assert!(memory.get(&[1; 32], now).is_some() && memory.get(&[2; 32], now).is_none());
        assert!(memory.get(&[1; 32], now + 2 * minute).is_none());
        let long: &'static [u8] = Box::leak(vec![0; memory.longest() + 1].into());
        memory.put([3; 32], kept(long, minute));
        assert!(memory.get(&[3; 32], now).is_none());
        for index in 0..10_000_u32 {
            let mut key = [4; 32];
            key[..4].copy_from_slice(&index.to_le_bytes());
            memory.put(key, kept(b"0123456789", minute));
        }
        assert!(memory.answers.weight() <= 1 << 20);
    }

    #[test]
    fn what_means_the_same_is_found_in_its_conversation_alone() {
        let memory = Memory::new(1 << 20).unwrap();
        let minute = Duration::from_secs(60);
        let meaning = |x: f32, y: f32| unit(vec![x, y]).unwrap();
        memory.put([1; 32], kept(b"a", minute));
        memory.note([9; 32], meaning(1.0, 0.0), [1; 32], minute);
        memory.note([9; 32], meaning(0.0, 1.0), [2; 32], minute);
        let near = |conversation: u8, x: f32, y: f32| {
            memory.near(&[conversation; 32], &meaning(x, y), 0.9, Instant::now()).is_some()
        };
        assert!(near(9, 5.0, 0.1));
        assert!(!near(9, 1.0, 1.0));
        assert!(!near(8, 1.0, 0.0));
        // Its answer is gone.
        assert!(!near(9, 0.0, 1.0));
        assert!(memory.near(&[9; 32], &[1.0], 0.9, Instant::now()).is_none());
        assert!(unit(vec![0.0, 0.0]).is_none() && unit(vec![f32::NAN]).is_none());
        for index in 0..1000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&index.to_le_bytes());
            memory.note([7; 32], meaning(1.0, 1.0), key, minute);
        }
        assert!(memory.near.get(&[7; 32]).unwrap().len() <= MOST_NEAR);
    }

    #[test]
    fn the_question_is_taken_out_of_its_conversation() {
        let check = |api: Api, mut body: Value, expected: Option<(&str, Value)>| {
            let said = question(api, &mut body);
            match expected {
                Some((text, left)) => assert_eq!((said.as_deref(), body), (Some(text), left)),
                None => assert_eq!(said, None, "{body}"),
            }
        };
        let user = |content: Value| json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": content}]});
        check(Api::OpenAi, user(json!("a")), Some(("a", user(json!("")))));
        check(
            Api::Anthropic,
            user(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])),
            Some(("a\nb", user(json!([])))),
        );
        check(Api::OpenAi, user(json!([{"type": "image_url", "image_url": {}}])), None);
        check(Api::OpenAi, json!({"messages": [{"role": "tool", "content": "a"}]}), None);
        check(Api::OpenAi, json!({"messages": []}), None);
        check(
            Api::Gemini,
            json!({"contents": [{"parts": [{"text": "a"}]}]}),
            Some(("a", json!({"contents": [{"parts": []}]}))),
        );
    }
}
