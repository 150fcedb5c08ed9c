//! What the daemon and a shim say to each other: containerd's Task API and Podbay's private service.
