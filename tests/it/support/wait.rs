//! Waiting for a condition, with an end.

use std::time::{Duration, Instant};

/// How long a busy machine may take for something that normally takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `patience`, naming `what` was waited for.
#[track_caller]
pub fn wait_until(patience: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(patience, condition),
        "waited {patience:?} for {what}"
    );
}

/// Whether `condition` comes to hold within `patience`.
pub fn holds_within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
}

#[test]
fn a_condition_that_never_holds_ends_the_wait() {
    assert!(!holds_within(Duration::from_millis(20), || false));
    let mut looks = 0;
    assert!(holds_within(PATIENCE, || {
        looks += 1;
        looks == 3
    }));
}
