//! podbay-bench: drives any CRI socket and prints what it costs.
fn main() {}
