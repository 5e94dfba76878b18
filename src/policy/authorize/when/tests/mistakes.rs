//! What is known to be wrong before there is a request, with its place.
use super::*;

/// `^` in `text` marks the place; it is taken out before the text is compiled.
#[track_caller]
fn check_mistake(text: &str, message: &str, hint: Option<&str>) {
    let offset = text.chars().position(|it| it == '^').unwrap();
    let text = text.replacen('^', "", 1);
    let mistake = When::compile(&text).err().unwrap_or_else(|| panic!("{text} is fine"));
    let expected = Mistake { offset, message: message.into(), hint: hint.map(Into::into) };
    assert_eq!(mistake, expected, "{text}");
}

#[test]
fn unknown_names_are_mistakes() {
    let variables = Some("there is `request`, `identity`");
    let check = |text: &str, name: &str, hint: Option<&str>| {
        check_mistake(text, &format!("unknown variable `{name}`"), hint);
    };
    check("^requst.method == 'GET'", "requst", Some("did you mean `request`?"));
    check(".^request.method == 'GET'", ".request", Some("did you mean `request`?"));
    check("^claims.tier == 'a'", "claims", Some("did you mean `identity.claims`?"));
    check("^nobody.tier == 'a'", "nobody", variables);
    check("^optional.none() == 1", "optional", variables);
    check("request.method == 'é' && ^nam == 1", "nam", variables);
    let near = Some("did you mean `group`?");
    check("identity.groups.exists(group, ^gruop == 'a')", "gruop", near);
}

#[test]
fn unknown_fields_are_mistakes() {
    let of_request = "there is request.method, request.path, request.host, request.scheme, \
                      request.query, request.headers, request.ip";
    let of_identity =
        "there is `consumer`, `groups`, `scopes`, `credential`, `claims`, `authenticator`";
    let near = Some("did you mean `method`?");
    check_mistake("request.^metod == 'GET'", "`request` has no `metod`", near);
    let text = "true && identity.^user == 'a'";
    check_mistake(text, "`identity` has no `user`", Some(of_identity));
    let by_itself = "`request` is no value by itself";
    check_mistake("^request == 'GET'", by_itself, Some(of_request));
    check_mistake("^request['method'] == 'GET'", by_itself, Some(of_request));
}

#[test]
fn unknown_functions_are_mistakes() {
    let near = Some("did you mean `startsWith`?");
    check_mistake("request.path.^startswith('/a')", "unknown function `startswith`", near);
    let all = "there is `all`, `bool`, `bytes`, `contains`, `double`, `dyn`, `endsWith`, `exists`, \
               `exists_one`, `filter`, `has`, `hasValue`, `int`, `map`, `matches`, `or`, \
               `orValue`, `size`, `startsWith`, `string`, `type`, `uint`, `value`";
    check_mistake("request.path.^timestamp()", "unknown function `timestamp`", Some(all));
}

#[test]
fn types_that_cannot_go_together_are_mistakes() {
    check_mistake(
        "^request.method",
        "the expression gives a string; it must say true or false",
        None,
    );
    check_mistake("^1", "the expression gives an int; it must say true or false", None);
    check_mistake("request.method ^== 1", "a string never equals an int", None);
    check_mistake(
        "identity.groups ^== 'a'",
        "a list never equals a string",
        Some("write `\"one\" in list`"),
    );
    check_mistake(
        "'a' ^in request.path",
        "`in` needs a list or a map, not a string",
        Some("write `text.contains(part)`"),
    );
    check_mistake("1 ^in identity.groups", "an int is never in a list with a string in it", None);
    check_mistake("request.method ^&& true", "`&&` needs true or false, not a string", None);
    check_mistake("^!request.path", "`!` needs true or false, not a string", None);
    check_mistake("request.path ^> 1", "`>` does not take a string and an int", None);
    check_mistake("request.path ^+ 1 == 'a'", "`+` does not take a string and an int", None);
    check_mistake("request.path^.size == 1", "a string has no `size`", None);
    check_mistake("request.path^[0] == 'a'", "a string has no index that is an int", None);
    check_mistake("identity.groups^['a'] == 'a'", "a list has no index that is a string", None);
    check_mistake("has^(request.method)", "`request.method` is always there", None);
    check_mistake(
        "request.path.^contains(1)",
        "`contains` does not take a string, an int like this",
        Some("write `text.contains(\"part\")`"),
    );
    check_mistake(
        "identity.claims.?tier ^== 'a'",
        "an optional never equals a string",
        Some("write `optional.orValue(value)`"),
    );
    check_mistake("request.path.all^(it, it == 'a')", "a string has no items to go through", None);
    check_mistake(
        "identity.groups.^exists(it)",
        "`exists` is not written like this",
        Some("write `list.exists(item, condition)`"),
    );
    check_mistake("has(^request)", "not an expression: invalid argument to has() macro", None);
}

#[test]
fn what_could_take_long_is_a_mistake() {
    let nested = "identity.groups.all(a, identity.scopes.all^(b, a != b))";
    check_mistake(nested, "a loop within a loop is not allowed: it could take very long", None);
    check_mistake(
        "request.path.^matches(request.query)",
        "`matches` does not take a string, a map like this",
        Some("write `text.matches(\"pattern\")`"),
    );
    check_mistake(
        "request.path.matches(request^.host)",
        "a pattern must be written out: one made from a request could take very long",
        None,
    );
    check_mistake("request.path.matches(^'(')", "not a regular expression: unclosed group", None);
    let large = format!("request.path.matches(^'{}')", r"(\\w{100}){100}");
    assert!(When::compile(&large.replace('^', "")).is_err());
    check_mistake(
        "identity.groups.all^(request, request == 'a')",
        "`request` is taken: name the items otherwise",
        None,
    );
}

#[test]
fn what_is_no_expression_is_a_mistake() {
    check_mistake("^", "the expression is empty", None);
    check_mistake(
        &format!("^{}", "a".repeat(2049)),
        "the expression is longer than 2048 bytes",
        None,
    );
    check_mistake("^  \n ", "the expression is empty", None);
    check_mistake("request.method ==^", "not an expression: mismatched input the end", None);
    check_mistake("request.method ^= 'GET'", "`=` means nothing here", Some("write `==`"));
    check_mistake(
        "request.method == 'é' ^and true",
        "not an expression: mismatched input 'and'",
        None,
    );
    check_mistake("request.method == ^'GET", "`'GET` means nothing here", None);
    check_mistake(
        "request.method == 'GET' ^and true",
        "not an expression: mismatched input 'and'",
        None,
    );
    check_mistake("^let.x == 1", "not an expression: reserved identifier: let", None);
    check_mistake("true ? ^: false", "not an expression: extraneous input ':'", None);
}
