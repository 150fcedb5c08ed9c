//! The Controller interface, behind which pod sandboxes are made, and its implementations.
