//! Which operations of a document are asked for.
use http::Method;

/// Which operations are meant. All that is given must hold; names and paths may have `*` in them.
#[derive(Debug, Default)]
pub struct Selection {
    /// By `operationId`, or the name that is made where there is none.
    pub ids: Vec<String>,
    pub methods: Vec<Method>,
    pub tags: Vec<String>,
    pub paths: Vec<String>,
    /// Of `ids`: not these.
    pub except: Vec<String>,
}

/// One list of a [`Selection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Ids,
    Tags,
    Paths,
    Except,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// Of the document.
    Document(String),
    /// This entry is not in the document.
    Unused(Filter, usize),
}

/// Which entries of the selection were found in the document.
pub(super) struct Used {
    ids: Vec<bool>,
    tags: Vec<bool>,
    paths: Vec<bool>,
    except: Vec<bool>,
}

impl Selection {
    /// Whether an operation is meant; `used` remembers what its words were good for.
    pub(super) fn takes(
        &self,
        id: &str,
        method: &Method,
        tags: &[&str],
        path: &str,
        used: &mut Used,
    ) -> bool {
        fn any(list: &[String], used: &mut [bool], fits: impl Fn(&str) -> bool) -> bool {
            let mut has_any = false;
            for (entry, used) in list.iter().zip(used) {
                if fits(entry) {
                    (*used, has_any) = (true, true);
                }
            }
            has_any
        }
        let by_id = any(&self.ids, &mut used.ids, |it| matches(it, id));
        let by_tag = any(&self.tags, &mut used.tags, |it| tags.contains(&it));
        let by_path = any(&self.paths, &mut used.paths, |it| matches(it, path));
        let is_left_out = any(&self.except, &mut used.except, |it| matches(it, id));
        (by_id || self.ids.is_empty())
            && (by_tag || self.tags.is_empty())
            && (by_path || self.paths.is_empty())
            && (self.methods.is_empty() || self.methods.contains(method))
            && !is_left_out
    }

    pub(super) fn unused(&self) -> Used {
        let none = |list: &[String]| vec![false; list.len()];
        Used {
            ids: none(&self.ids),
            tags: none(&self.tags),
            paths: none(&self.paths),
            except: none(&self.except),
        }
    }
}

impl Used {
    pub fn problems(&self) -> Vec<Problem> {
        let lists = [
            (Filter::Ids, &self.ids),
            (Filter::Tags, &self.tags),
            (Filter::Paths, &self.paths),
            (Filter::Except, &self.except),
        ];
        let each = lists.iter().flat_map(|(filter, used)| {
            let unused = used.iter().enumerate().filter(|(_, it)| !**it);
            unused.map(|(index, _)| Problem::Unused(*filter, index))
        });
        each.collect()
    }
}

/// Whether `text` is what `pattern` says; `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let check = |pattern, text, expected| {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}")
        };
        check("a", "a", true);
        check("a", "ab", false);
        check("a*", "ab", true);
        check("*", "", true);
        check("get*Order", "getOrder", true);
        check("get*Order", "getAnOrder", true);
        check("get*Order", "getOrders", false);
        check("a*b*c", "abbc", true);
        check("a*b*c", "acb", false);
        check("*b*", "abc", true);
        check("a*a", "a", false);
    }
}
