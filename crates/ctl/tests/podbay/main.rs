//! The program itself, run against a runtime that makes nothing.

mod demo;
mod fake;
mod verbs;
