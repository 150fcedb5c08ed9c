//! The built-in bridge network: addresses, veth pairs, routes, masquerade and host ports, without CNI.
