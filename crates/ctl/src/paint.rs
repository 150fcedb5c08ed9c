//! Colour, on a terminal only, and not where `NO_COLOR` is set (no-color.org).

use std::io::IsTerminal;

#[derive(Clone, Copy, Debug)]
pub enum Ink {
    Good,
    Bad,
    Faint,
    Strong,
}

/// Whether standard output shows colours.
pub fn wanted() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The text, coloured if `wanted`.
pub fn paint(wanted: bool, ink: Ink, text: &str) -> String {
    let code = match ink {
        Ink::Good => "32",
        Ink::Bad => "31",
        Ink::Faint => "2",
        Ink::Strong => "1",
    };
    if wanted { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
