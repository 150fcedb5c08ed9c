//! One single-threaded process a pod: runs containers, holds their stdio, writes their logs.
fn main() {}
