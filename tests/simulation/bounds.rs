//! How long the server may wait: what its documentation says, in one place.

use std::time::Duration;

/// A connection may be silent for so long before its first request is complete.
pub const HEADER_READ: Duration = Duration::from_secs(30);

/// An HTTP/1 connection may be idle for so long between two requests.
pub const IDLE: Duration = Duration::from_secs(620);

/// Time that a silent HTTP/2 client has to answer the server's GOAWAY: looked at every five
/// seconds.
pub const GOAWAY: Duration = Duration::from_secs(10);

/// The transport may accept nothing of a response for so long.
pub const STALL: Duration = Duration::from_secs(60);

/// The server looks for stalled HTTP/2 streams so often.
pub const STALL_INTERVAL: Duration = Duration::from_millis(7_500);

/// Tokio's timers count milliseconds, and one rounds up after another.
pub const TIMER: Duration = Duration::from_millis(5);

/// A run that is not over after so long hangs: every pause of the simulation is far shorter.
pub const HUNG: Duration = Duration::from_secs(24 * 3600);
