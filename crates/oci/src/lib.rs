//! A container's plan turned into an OCI runtime config. Pure: reads no host, writes no file.
