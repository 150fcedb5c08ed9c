//! One single-threaded process a pod: it runs the pod's containers, holds their stdio, writes
//! their logs and records their ends. It outlives the daemon that started it.
//!
//! One thread, and no blocking pool: a copy of one thread of many can do nothing safely, and the
//! copies of this process become containers ([`init`]).
//! What may block is done in a copy of the process ([`worker`]); what must not get lost is on disk
//! before it is told ([`exit`]). Images, networks and CRI are not known here.

pub mod bundle;
pub mod capabilities;
pub mod cgroups;
pub mod clock;
pub mod confine;
pub mod console;
pub mod error;
pub mod exec;
pub mod exit;
pub mod fan;
pub mod fork;
pub mod handover;
pub mod heap;
pub mod hooks;
pub mod init;
pub mod join;
pub mod log;
pub mod processes;
pub mod program;
pub mod pty;
pub mod reaper;
pub mod runtime;
pub mod seal;
pub mod seccomp;
pub mod server;
pub mod settings;
pub mod source;
pub mod start;
pub mod state;
pub mod stdio;
pub mod supervisor;
pub mod task;
pub mod tasks;
pub mod worker;
