//! References to blobs to layers to a root filesystem.
