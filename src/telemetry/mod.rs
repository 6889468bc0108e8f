//! Logs (and later traces and metrics). Nothing here may stop, slow or crash a job.
