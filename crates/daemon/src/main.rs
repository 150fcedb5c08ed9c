//! podbayd: builds the rooms, serves CRI, drains.
fn main() {}
