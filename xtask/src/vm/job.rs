//! A script of `vm/jobs`: what it is for, what it needs, and how long it may take. Comments at its
//! beginning tell:
//!
//! ```sh
//! #!/usr/bin/env bash
//! # What it is for.
//! # needs: conformance package
//! # tests: sys shim
//! # within: 30m
//! # boots: 2
//! ```
//!
//! With `boots`, what is written to the machine's disk stays for as long as the run lasts: the job is
//! started that often, each time but the last after it has ended well and the machine was started anew.
//! With `cuts: 30` instead, the machine is not let down but ends at once, like a machine that loses its power, some
//! seconds after the job has said that its work begins. An argument that is a number stands for another one.

use std::{fs, time::Duration};

use crate::files::at;

/// If it says nothing.
const WITHIN: Duration = Duration::from_secs(600);

pub(super) struct Job {
    pub name: String,
    pub arguments: Vec<String>,
    pub needs: Needs,
    /// Packages whose tests it runs.
    pub tests: Vec<String>,
    pub within: Duration,
    pub boots: Boots,
}

/// What is made for a job beside our programs, and taken into the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// critest, crictl and their images.
    pub conformance: bool,
    /// The package for Debian.
    pub package: bool,
    /// A daemon that can be told to fail.
    pub faults: bool,
}

/// How often the job's machine is started, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boots {
    pub number: u32,
    /// Whether each but the last ends in a power cut.
    pub cut: bool,
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
        let needs =
            |what: &str| said(&text, "needs").into_iter().flat_map(words).any(|it| it == what);
        let needs = Needs {
            conformance: needs("conformance"),
            package: needs("package"),
            faults: needs("faults"),
        };
        Ok(Self {
            name: name.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            needs,
            tests: said(&text, "tests").into_iter().flat_map(words).collect(),
            within: within.unwrap_or(WITHIN),
            boots: boots(&text, arguments)?,
        })
    }

    /// What the machine reads: shell, with the words quoted.
    pub(super) fn order(&self) -> String {
        let quoted: Vec<String> = self.arguments.iter().map(|word| quote(word)).collect();
        let (name, within) = (quote(&self.name), self.within.as_secs());
        format!("JOB={name}\nWITHIN={within}\nARGUMENTS=({})\n", quoted.join(" "))
    }
}

fn boots(text: &str, arguments: &[&str]) -> Result<Boots, String> {
    let asked = arguments.iter().find_map(|argument| argument.parse().ok());
    let number = |key| {
        let said = said(text, key)?;
        let said = said.parse().map_err(|_| format!("{key}: {said:?} is no number"));
        Some(said.map(|said: u32| asked.unwrap_or(said)))
    };
    Ok(match (number("cuts").transpose()?, number("boots").transpose()?) {
        (Some(cuts), _) => Boots { number: cuts.saturating_add(1), cut: true },
        (None, boots) => Boots { number: boots.unwrap_or(1).max(1), cut: false },
    })
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
    fn a_job_is_started_once_or_as_often_as_is_said_and_asked() {
        let boots = |text, arguments: &[&str]| boots(text, arguments).unwrap();
        assert_eq!(boots("#!/bin/sh\n", &["7"]), Boots { number: 1, cut: false });
        assert_eq!(boots("# boots: 2\n", &["x"]), Boots { number: 2, cut: false });
        assert_eq!(boots("# cuts: 30\n", &[]), Boots { number: 31, cut: true });
        assert_eq!(boots("# cuts: 30\n", &["x", "4"]), Boots { number: 5, cut: true });
    }

    #[test]
    fn no_argument_is_more_than_a_word_to_the_shell() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
