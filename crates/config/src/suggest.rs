//! Turns the parser's words about a wrong key into advice.

/// The error's text with its place, and the nearest right key if a wrong one was given.
pub(crate) fn explain(error: &toml::de::Error) -> String {
    let text = error.to_string().trim_end().to_owned();
    let message = error.message();
    let Some(list) = message.strip_prefix("unknown field ") else {
        return text;
    };
    let mut quoted = list.split('`').skip(1).step_by(2);
    let wrong = quoted.next().unwrap_or_default();
    format!("{text}{}", nearest(wrong, &quoted.collect::<Vec<_>>()))
}

/// `; did you mean …?`, or nothing if nothing is near.
pub(crate) fn nearest(wrong: &str, right: &[&str]) -> String {
    right
        .iter()
        .map(|key| (strsim::damerau_levenshtein(wrong, key), key))
        .min()
        .filter(|(distance, key)| *distance <= 1 + key.len() / 3)
        .map_or_else(String::new, |(_, key)| format!("; did you mean `{key}`?"))
}
