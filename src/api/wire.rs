//! The JSON shapes of the API: what clients of 2018 send and decode (`docs/api.md` sections 2 to 4).
//!
//! The order of the fields is part of it.

mod call;
mod change;
mod filters;
mod func;
mod image;
mod system;

pub(super) use call::{accepted, log_line, status};
pub(super) use change::{Create, Update, from_json};
pub(super) use filters::{function_filters, image_filters};
pub(super) use func::func;
pub(super) use image::{inspected, listed, load_error_line, loaded_line, progress_line, removed};
pub(super) use system::{Info, info, version};

use crate::domain::Timestamp;

/// RFC 3339 with milliseconds and `Z`.
fn rfc3339(timestamp: Timestamp) -> String {
    // Out of range are only moments that no clock shows.
    let moment = jiff::Timestamp::from_millisecond(timestamp.0).unwrap_or_default();
    format!("{moment:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_always_have_their_milliseconds() {
        assert_eq!(rfc3339(Timestamp(1_489_647_924_473)), "2017-03-16T07:05:24.473Z");
        assert_eq!(rfc3339(Timestamp(1_489_647_924_000)), "2017-03-16T07:05:24.000Z");
    }
}
