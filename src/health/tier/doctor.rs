//! Why is nothing running? The blocking clause first.
