//! How a client is told the end of a command: a `Status` of Kubernetes in JSON, or in older versions
//! words, and those only for what went wrong.

use serde_json::json;

use crate::{Refusal, agree::Dialect};

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Success,
    Exit(i32),
    /// What was being done, and why it was not.
    Failed(&'static str, Refusal),
}

impl Status {
    /// What goes to the error stream; nothing for a success in an older version.
    pub(crate) fn told(&self, dialect: Dialect) -> Vec<u8> {
        match dialect {
            Dialect { json: true, .. } => self.json().to_string().into_bytes(),
            Dialect { json: false, .. } => self.words().into_bytes(),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Exit(code) => format!("command terminated with non-zero exit code: {code}"),
            Self::Failed(doing, why) => format!("Internal error occurred: {doing}: {why}"),
        }
    }

    fn json(&self) -> serde_json::Value {
        let message = self.words();
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exit(code) => json!({
                "metadata": {}, "status": "Failure", "message": message,
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(doing, why) => json!({
                "metadata": {}, "status": "Failure", "message": message,
                "reason": "InternalError", "code": 500,
                "details": {"causes": [{"message": format!("{doing}: {why}")}]},
            }),
        }
    }
}
