//! Bad input: a clear and distinct message, an exit code, a metric reason, and no harm to what
//! readers see.

mod kinds;
mod repositories;
mod secrets;
mod usage;
mod volumes;
