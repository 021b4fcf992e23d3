//! The one place that reads the clock; everything that decides takes the time as a parameter.

use jiff::Timestamp;

/// The time now, UTC.
pub fn now() -> Timestamp {
    Timestamp::now()
}
