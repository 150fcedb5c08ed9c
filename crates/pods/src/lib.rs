//! Pods and containers: what they own, the steps that make them, their states, and recovery.
