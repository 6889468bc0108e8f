//! The HTTP faces, on hyper: the API (`/v1/…`), the probes, and `dev`'s inbox.
