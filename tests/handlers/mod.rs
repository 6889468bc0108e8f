//! The built-in kinds against real receivers: an HTTP receiver that verifies signatures with the Standard Webhooks
//! project's own library, and aiosmtpd.

mod echo;
mod email;
mod lines;
mod peer;
mod webhook;
mod whole;
