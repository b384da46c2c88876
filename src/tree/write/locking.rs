//! Locking a mutex that the workers share.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panics makes the whole build fail, so a half-changed value is never used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value of a mutex that is no longer shared.
pub(super) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
