//! The names that clients see of what several servers offer: `server__tool`, and `server+uri` for
//! resources. They are looked up in tables as they are, and never taken apart to find a tool.
use std::fmt::Write;

use sha2::{Digest, Sha256};

/// What the APIs of models take as the name of a tool.
pub const LONGEST: usize = 64;
const SEPARATOR: &str = "__";

/// The name of a server as it may stand in those names.
///
/// # Errors
/// A sentence for people.
pub fn server(text: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || text.len() > 32 || !text.chars().all(is_fine) || text.contains(SEPARATOR) {
        return Err(format!(
            "`{}` is not the name of a server of tools: 1 to 32 of small letters, digits, - and single _, a letter first",
            text.escape_debug()
        ));
    }
    Ok(())
}

/// What clients call `name` of `server`.
#[must_use]
pub fn prefixed(server: &str, name: &str) -> String {
    let whole = format!("{server}{SEPARATOR}{name}");
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if whole.len() <= LONGEST && whole.chars().all(is_fine) {
        return whole;
    }
    // What is changed or cut is told apart by the beginning of its hash.
    let hash = Sha256::digest(name.as_bytes());
    let mut end = String::with_capacity(9);
    for byte in hash.iter().take(4) {
        // Writing to a string does not fail.
        let _ = write!(end, "{byte:02x}");
    }
    let kept = whole.chars().map(|c| if is_fine(c) { c } else { '_' });
    let kept: String = kept.take(LONGEST - end.len() - 1).collect();
    format!("{kept}_{end}")
}

/// The server that a name may be of: only that one is asked whether it has it.
#[must_use]
pub fn server_of(name: &str) -> Option<&str> {
    name.split_once(SEPARATOR).map(|it| it.0)
}

/// A scheme has no `_`.
fn scheme(server: &str) -> String {
    server.replace('_', ".")
}

/// What clients call a resource of `server`.
#[must_use]
pub fn wrapped(server: &str, uri: &str) -> String {
    format!("{}+{uri}", scheme(server))
}

/// What `server` calls the resource, if it is one of its.
#[must_use]
pub fn unwrapped<'a>(server: &str, uri: &'a str) -> Option<&'a str> {
    let (found, rest) = uri.split_once('+')?;
    (found == scheme(server)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_fit_the_apis_of_models() {
        let check = |name: &str, expected: &str| assert_eq!(prefixed("crm", name), expected);
        check("search", "crm__search");
        check("Search_all-2", "crm__Search_all-2");
        check("../x", "crm_____x_d6b96a97");
        check("a.b", "crm__a_b_2e7336dc");
        assert_eq!(prefixed("crm", &"x".repeat(100)).len(), LONGEST);
    }

    #[test]
    fn a_resource_is_of_one_server() {
        let wrapped = wrapped("orders_api", "file:///a+b");
        assert_eq!(wrapped, "orders.api+file:///a+b");
        assert_eq!(unwrapped("orders_api", &wrapped), Some("file:///a+b"));
        assert_eq!(unwrapped("orders", &wrapped), None);
        assert_eq!(unwrapped("orders_api", "file:///a"), None);
    }

    #[test]
    fn servers_have_names_that_cannot_be_mistaken() {
        let check = |name: &str, is_fine| assert_eq!(server(name).is_ok(), is_fine, "{name}");
        check("crm", true);
        check("orders_api-2", true);
        check("a__b", false);
        check("Crm", false);
        check("2crm", false);
        check("a.b", false);
        check("a+b", false);
        check("", false);
    }

    proptest! {
        #[test]
        fn every_name_is_taken_by_models(name in "\\PC{0,200}") {
            let name = prefixed("crm", &name);
            prop_assert!(name.len() <= LONGEST);
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'));
            prop_assert_eq!(server_of(&name), Some("crm"));
        }
    }
}
