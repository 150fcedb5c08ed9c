//! `WWW-Authenticate`, read leniently: what cannot be read is left out, never refused, since a
//! registry may offer a scheme of its own beside one that we know (RFC 9110 §11.6.1).

/// One way in which a server lets itself be persuaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Names in lower case, values unquoted, in the order given.
    pub params: Vec<(String, String)>,
}

impl Challenge {
    /// The first value of this name, if it is not empty.
    pub fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// More than any server sends; a header is at most some hundred KiB, and hyper bounds it.
const MOST_CHALLENGES: usize = 16;
const MOST_PARAMS: usize = 32;

/// Every challenge in the value of one `WWW-Authenticate` header.
pub fn parse_challenge(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = Rest(text);
    while !rest.0.is_empty() {
        rest.skip_commas();
        let word = rest.token();
        if word.is_empty() {
            rest.skip_item();
        } else if rest.equals() {
            let value = rest.value();
            if let Some(last) = challenges.last_mut().filter(|c| c.params.len() < MOST_PARAMS) {
                last.params.push((word.to_ascii_lowercase(), value));
            }
        } else if challenges.len() < MOST_CHALLENGES {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
        } else {
            break;
        }
    }
    challenges
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip_commas(&mut self) {
        self.take(|c| c == ',' || c.is_ascii_whitespace());
    }

    /// Past something unreadable: at least one character, up to the next comma.
    fn skip_item(&mut self) {
        let mut chars = self.0.chars();
        chars.next();
        self.0 = chars.as_str();
        self.take(|c| c != ',');
    }

    fn token(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c))
    }

    /// Whether a value follows. Only spaces may be between; `scheme   name=x` is not an equation.
    fn equals(&mut self) -> bool {
        let trimmed = self.0.trim_start_matches([' ', '\t']);
        let Some(after) = trimmed.strip_prefix('=') else { return false };
        self.0 = after.trim_start_matches([' ', '\t']);
        true
    }

    fn value(&mut self) -> String {
        match self.0.strip_prefix('"') {
            Some(quoted) => {
                self.0 = quoted;
                self.unquote()
            }
            None => self.take(|c| c != ',' && !c.is_ascii_whitespace()).to_owned(),
        }
    }

    /// Up to the closing quote, or to the end if there is none.
    fn unquote(&mut self) -> String {
        let mut value = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => value.extend(chars.next()),
                plain => value.push(plain),
            }
        }
        self.0 = chars.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(text: &str) -> Challenge {
        let mut found = parse_challenge(text).into_iter();
        found.find(|challenge| challenge.scheme == "bearer").unwrap()
    }

    #[test]
    fn a_bearer_challenge_as_docker_hub_sends_it() {
        let challenge = bearer(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#,
        );
        assert_eq!(challenge.param("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(challenge.param("service"), Some("registry.docker.io"));
        assert_eq!(challenge.param("scope"), Some("repository:library/busybox:pull,push"));
    }

    #[test]
    fn two_schemes_in_one_header_are_two_challenges() {
        let text =
            r#"Negotiate, NTLM abc==, BEARER Realm = "x" , service=y, Basic realm="a, \"b\"""#;
        let found = parse_challenge(text);
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert!(schemes.starts_with(&["negotiate", "ntlm"]), "{schemes:?}");
        assert_eq!(bearer(text).param("realm"), Some("x"));
        assert_eq!(bearer(text).param("service"), Some("y"));
        let basic = found.iter().find(|c| c.scheme == "basic").unwrap();
        assert_eq!(basic.param("realm"), Some("a, \"b\""));
    }

    #[test]
    fn an_empty_value_is_as_good_as_none() {
        assert_eq!(bearer("Bearer realm=,scope=\"\"").param("scope"), None);
        assert_eq!(bearer("Bearer").param("realm"), None);
        assert!(parse_challenge("").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_found_is_bounded(text in "\\PC{0,200}") {
            let found = parse_challenge(&text);
            prop_assert!(found.len() <= MOST_CHALLENGES);
            prop_assert!(found.iter().all(|c| !c.scheme.is_empty() && c.params.len() <= MOST_PARAMS));
        }

        #[test]
        fn near_challenges_do_not_panic(text in "(Bearer|Basic|[a-z ]{0,4}|[=,\"\\\\ ]{0,4}|realm=\"[^\"]{0,5}\"?){0,12}") {
            parse_challenge(&text);
        }

        #[test]
        fn any_value_survives_quoting(value in "\\PC{1,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let challenge = bearer(&format!("Basic realm=\"r\", Bearer a=b, realm=\"{quoted}\", c=d"));
            prop_assert_eq!(challenge.param("realm"), Some(value.as_str()));
        }
    }
}
