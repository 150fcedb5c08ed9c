//! The Container Network Interface, as a client: conf lists, ADD, DEL, CHECK, STATUS, GC.
