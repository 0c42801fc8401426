//! Use cases: load state, let `core` decide, commit, run effects through the ports.
