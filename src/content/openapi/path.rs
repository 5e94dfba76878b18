//! Path templates: exact ones by a look-up, those with variable segments by their number of segments,
//! the one with the earliest fixed segment first.
use std::sync::Arc;

use ahash::AHashMap;
use http::Method;

use super::{Found, Operation};

#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: AHashMap<Box<str>, Operations>,
    templates: AHashMap<usize, Vec<Template>>,
    /// What the servers' URLs put before each path.
    pub bases: Vec<Box<str>>,
}

type Template = (Box<[Segment]>, Operations);

pub(super) type Operations = Vec<(Method, Arc<Operation>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Fixed(Box<str>),
    Variable(Box<str>),
}

impl Paths {
    /// # Errors
    /// It is not a path, or has a variable within a segment.
    pub fn add(&mut self, template: &str, operations: Operations) -> Result<(), String> {
        let Some(rest) = template.strip_prefix('/') else {
            return Err("a path begins with `/`".to_owned());
        };
        let segments = rest.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
        if segments.iter().all(|it| matches!(it, Segment::Fixed(_))) {
            self.exact.insert(template.into(), operations);
        } else {
            self.templates.entry(segments.len()).or_default().push((segments.into(), operations));
        }
        Ok(())
    }

    pub fn finish(&mut self) {
        for templates in self.templates.values_mut() {
            templates.sort_by_key(|(segments, _)| {
                let order = |it: &Segment| matches!(it, Segment::Variable(_));
                segments.iter().map(order).collect::<Vec<_>>()
            });
        }
        if self.bases.is_empty() {
            self.bases.push("".into());
        }
    }

    pub fn find<'a>(&'a self, method: &Method, path: &'a str) -> Option<Found<'a>> {
        self.bases.iter().find_map(|base| {
            let path = path.strip_prefix(&**base).filter(|it| it.starts_with('/'))?;
            let exact = self.exact.get(path).and_then(|it| of(it, method));
            let found = exact.map(|operation| Found { operation, variables: Vec::new() });
            found.or_else(|| self.find_template(method, path))
        })
    }

    fn find_template<'a>(&'a self, method: &Method, path: &'a str) -> Option<Found<'a>> {
        let given = || path.split('/').skip(1);
        let templates = self.templates.get(&given().count())?;
        templates.iter().find_map(|(segments, operations)| {
            let is_it = segments.iter().zip(given()).all(|(segment, given)| match segment {
                Segment::Fixed(text) => **text == *given,
                Segment::Variable(_) => !given.is_empty(),
            });
            let operation = of(operations, method).filter(|_| is_it)?;
            let variables =
                segments.iter().zip(given()).filter_map(|(segment, given)| match segment {
                    Segment::Variable(name) => Some((&**name, given)),
                    Segment::Fixed(_) => None,
                });
            Some(Found { operation, variables: variables.collect() })
        })
    }
}

fn of<'a>(operations: &'a Operations, method: &Method) -> Option<&'a Arc<Operation>> {
    let by = |method: &Method| operations.iter().find(|(it, _)| it == method);
    // Who may GET may ask for the head of it.
    let found = by(method).or_else(|| by(&Method::GET).filter(|_| method == Method::HEAD));
    found.map(|(_, it)| it)
}

fn segment(text: &str) -> Result<Segment, String> {
    let name = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    match name {
        Some(name) if !name.contains(['{', '}']) && !name.is_empty() => {
            Ok(Segment::Variable(name.into()))
        }
        None if !text.contains(['{', '}']) => Ok(Segment::Fixed(text.into())),
        _ => Err(format!("`{text}`: a variable is a whole segment")),
    }
}
