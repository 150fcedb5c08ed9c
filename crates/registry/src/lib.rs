//! The OCI distribution protocol, as a client: mirrors, authorisation, retries, ranged blobs.
