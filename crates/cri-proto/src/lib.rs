//! The Container Runtime Interface v1, generated from our own api.proto.
