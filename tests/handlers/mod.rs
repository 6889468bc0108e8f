//! The built-in kinds against real receivers: an HTTP receiver that verifies signatures with the Standard Webhooks
//! project's own library, and aiosmtpd.

mod content;
mod echo;
mod email;
mod lines;
mod peer;
mod secrets;
mod webhook;
mod whole;
