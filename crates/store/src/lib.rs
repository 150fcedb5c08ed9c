//! Durable records: put, get, scan, erase; sealed with a key, versioned, quarantined when unreadable.
