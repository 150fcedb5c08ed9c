//! How messages that carry secrets print: by their shape, never by their content. The generated
//! Debug of every message that holds one of these comes through here.

use std::fmt;

use crate::{admin, v1};

/// Prints `-` for nothing and `***` for anything, whose length is nobody's business either.
struct Hidden<'a>(&'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "-" } else { "***" })
    }
}

impl fmt::Debug for v1::AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("password", &Hidden(&self.password))
            .field("auth", &Hidden(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &Hidden(&self.identity_token))
            .field("registry_token", &Hidden(&self.registry_token))
            .finish()
    }
}

/// Environment variables are where pods get their Secrets.
impl fmt::Debug for v1::KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=({} bytes)", self.key, self.value.len())
    }
}

impl fmt::Debug for admin::Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &Hidden(&self.password))
            .finish()
    }
}
