//! What makes a URL of ours good: a token that cannot be guessed, for one use and for a minute. There
//! is no other proof, since whoever asks for a URL passes it on.

use std::{collections::HashMap, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

use crate::{Ask, Error};

/// How long a token is good.
pub(crate) const LIFE: Duration = Duration::from_secs(60);

/// How many may wait to be used.
const PENDING: usize = 1000;

/// The tokens that were given out and not used.
#[derive(Debug, Default)]
pub(crate) struct Tokens(HashMap<String, (Instant, Ask)>);

impl Tokens {
    pub(crate) fn give(&mut self, ask: Ask) -> Result<String, Error> {
        let now = Instant::now();
        self.0.retain(|_, (until, _)| *until > now);
        if self.0.len() >= PENDING {
            return Err(Error::TooMany(PENDING));
        }
        let token = random()?;
        self.0.insert(token.clone(), (now + LIFE, ask));
        Ok(token)
    }

    /// What the token is good for, of this kind. It is used up then, and also if it was of another.
    pub(crate) fn take(&mut self, verb: &str, token: &str) -> Option<Ask> {
        let (until, ask) = self.0.remove(token)?;
        (until > Instant::now() && ask.verb() == verb).then_some(ask)
    }
}

/// 128 bits, fit for a path.
fn random() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    let got = getrandom(&mut bytes, GetRandomFlags::empty()).map_err(io::Error::from);
    // So few are given whole, or not at all.
    match got {
        Ok(16) => Ok(URL_SAFE_NO_PAD.encode(bytes)),
        Ok(_) => Err(Error::Random(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(Error::Random(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::PortForward;

    fn ask() -> Ask {
        Ask::PortForward(PortForward { pod: "pod".to_owned(), ports: Vec::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_only_for_what_it_was_given_for() {
        let mut tokens = Tokens::default();
        let token = tokens.give(ask()).unwrap();
        assert_eq!(tokens.take("portforward", "other"), None);
        assert_eq!(tokens.take("portforward", &token), Some(ask()));
        assert_eq!(tokens.take("portforward", &token), None);
        let token = tokens.give(ask()).unwrap();
        assert_eq!(tokens.take("exec", &token), None);
        assert_eq!(tokens.take("portforward", &token), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_for_a_minute() {
        let mut tokens = Tokens::default();
        let (first, second) = (tokens.give(ask()).unwrap(), tokens.give(ask()).unwrap());
        tokio::time::advance(LIFE - Duration::from_millis(1)).await;
        assert!(tokens.take("portforward", &first).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(tokens.take("portforward", &second).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_may_be_pending_and_room_is_made_by_time() {
        let mut tokens = Tokens::default();
        let given: HashSet<String> = (0..PENDING).map(|_| tokens.give(ask()).unwrap()).collect();
        assert_eq!(given.len(), PENDING);
        assert!(given.iter().all(|token| token.len() >= 8 && !token.contains(['+', '/', '='])));
        assert!(matches!(tokens.give(ask()), Err(Error::TooMany(PENDING))));
        tokio::time::advance(LIFE).await;
        tokens.give(ask()).unwrap();
        assert_eq!(tokens.0.len(), 1);
    }
}
