//! The gRPC edge: CRI messages to the domain and back, one file an RPC.
