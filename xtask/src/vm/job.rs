//! A script of `vm/jobs`: what it is for, what it needs, and how long it may take. Comments at its
//! beginning tell:
//!
//! ```sh
//! #!/usr/bin/env bash
//! # What it is for.
//! # needs: conformance
//! # tests: sys shim
//! # within: 30m
//! ```

use std::{fs, time::Duration};

use super::place::at;

/// If it says nothing.
const WITHIN: Duration = Duration::from_secs(600);

pub(super) struct Job {
    pub name: String,
    pub arguments: Vec<String>,
    /// critest, crictl and their images.
    pub needs_conformance: bool,
    /// Packages whose tests it runs.
    pub tests: Vec<String>,
    pub within: Duration,
}

impl Job {
    /// The names of all, and what each is for.
    pub(super) fn all() -> Vec<(String, String)> {
        let entries = fs::read_dir(crate::root().join("vm/jobs")).into_iter().flatten().flatten();
        let about = |entry: fs::DirEntry| {
            let name = entry.file_name().to_str()?.strip_suffix(".sh")?.to_owned();
            let text = fs::read_to_string(entry.path()).ok()?;
            let about = text.lines().nth(1)?.strip_prefix("# ")?.to_owned();
            Some((name, about))
        };
        let mut all: Vec<_> = entries.filter_map(about).collect();
        all.sort();
        all
    }

    pub(super) fn find(name: &str, arguments: &[&str]) -> Result<Self, String> {
        let names: Vec<String> = Self::all().into_iter().map(|(name, _)| name).collect();
        if !names.iter().any(|known| known == name) {
            return Err(format!("there is no job {name:?}, but {}", names.join(", ")));
        }
        let path = crate::root().join("vm/jobs").join(format!("{name}.sh"));
        let text = fs::read_to_string(&path).map_err(at("reading", &path))?;
        let within = said(&text, "within").map(parse).transpose()?;
        Ok(Self {
            name: name.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            needs_conformance: said(&text, "needs") == Some("conformance"),
            tests: said(&text, "tests").into_iter().flat_map(words).collect(),
            within: within.unwrap_or(WITHIN),
        })
    }

    /// What the machine reads: shell, with the words quoted.
    pub(super) fn order(&self) -> String {
        let quoted: Vec<String> = self.arguments.iter().map(|word| quote(word)).collect();
        let (name, within) = (quote(&self.name), self.within.as_secs());
        format!("JOB={name}\nWITHIN={within}\nARGUMENTS=({})\n", quoted.join(" "))
    }
}

/// What a line `# KEY: VALUE` before the script proper says.
fn said<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.filter_map(|line| line[1..].trim().strip_prefix(key)?.strip_prefix(": ")).next()
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

fn parse(text: &str) -> Result<Duration, String> {
    let minutes = text.strip_suffix('m').and_then(|number| number.parse::<u64>().ok());
    let minutes = minutes.ok_or_else(|| format!("within: {text:?} is not as in \"30m\""))?;
    Ok(Duration::from_secs(minutes * 60))
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_tells_what_it_needs_in_the_comments_before_it() {
        let text = "#!/bin/sh\n# For this.\n# needs: conformance\n\n# within: 3m\n";
        assert_eq!(said(text, "needs"), Some("conformance"));
        assert_eq!(said(text, "within"), None);
        assert_eq!(parse("3m"), Ok(Duration::from_secs(180)));
        assert!(parse("3 minutes").is_err());
    }

    #[test]
    fn no_argument_is_more_than_a_word_to_the_shell() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
