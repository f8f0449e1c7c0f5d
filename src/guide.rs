//! The longer texts, a page each, in the order in which they read best.
//!
//! To use it:
//!
//! 1. [What can be deferred](deferring), from where, and work that is no request
//! 2. [Which callbacks run](which_callbacks_run): rules, order, names, nesting, each for itself
//! 3. [When a response is over](when_it_is_over), and the two levels of sent
//! 4. [What a callback may hold](what_a_callback_may_hold), and for how long
//! 5. [How sure must it be](how_sure)? `before_response`, an outbox, a queue
//!
//! To put it into an app:
//!
//! 6. [Layer order](layer_order): where the layer goes, beside which others
//! 7. [Limits](limits)
//! 8. [Shutdown](shutdown)
//! 9. [Observing](observing): spans, metrics, observers; and [the live view](https://docs.rs/axum-defer-live)
//! 10. [Testing](crate::testing) an app that defers
//! 11. [Platforms](platforms) that freeze, end or stop a process
//!
//! For those who know how to do it elsewhere: [coming from](coming_from) Laravel, Starlette, Next.js,
//! Express, PHP-FPM, or `tokio::spawn`.
//!
//! The modules [`serve`](mod@crate::serve) and [`sent`](crate::sent) begin with a page each, too.
//!
//! All code on these pages compiles, and runs unless it is a server that would run for ever. What can
//! be said, in three lines:
//!
//! ```
//! use axum::{Router, routing::post};
//! use axum_defer::{DeferLayer, before_response, defer};
//!
//! async fn order() -> &'static str {
//!     before_response(async { /* a commit: the client waits for it */ });
//!     defer(async { /* a mail: if all of that was a success */ });
//!     defer(async { /* an audit line: in any case */ }).always();
//!     "thank you"
//! }
//!
//! let app: Router = Router::new().route("/orders", post(order)).layer(DeferLayer::new());
//! ```

pub mod deferring {
    #![doc = include_str!("../docs/deferring.md")]
}

pub mod which_callbacks_run {
    #![doc = include_str!("../docs/which-callbacks-run.md")]
}

pub mod when_it_is_over {
    #![doc = include_str!("../docs/when-it-is-over.md")]
    // Without an empty line around it, it would be part of a sentence.
    #![doc = ""]
    #![doc = include_str!("../docs/pictures/when_it_fires.svg")]
    #![doc = ""]
    #![doc = include_str!("../docs/where-the-bytes-are.md")]
}

pub mod what_a_callback_may_hold {
    #![doc = include_str!("../docs/what-a-callback-may-hold.md")]
}

pub mod how_sure {
    #![doc = include_str!("../docs/how-sure.md")]
}

pub mod layer_order {
    #![doc = include_str!("../docs/layer-order.md")]
}

pub mod limits {
    #![doc = include_str!("../docs/limits.md")]
}

pub mod shutdown {
    #![doc = include_str!("../docs/shutdown.md")]
}

pub mod observing {
    #![doc = include_str!("../docs/observing.md")]
}

pub mod platforms {
    #![doc = include_str!("../docs/platforms.md")]
}

pub mod coming_from {
    #![doc = include_str!("../docs/coming-from.md")]
}

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
