//! The wrapper that measures an engine: it adds nothing to the meaning, and passes the same conformance suite.
