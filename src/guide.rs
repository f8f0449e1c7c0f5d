//! Guide: one page per topic.
//!
//! Writing callbacks:
//!
//! 1. [Deferring work](deferring): callbacks, scopes, and work outside requests
//! 2. [Rules and order](which_callbacks_run): which callbacks run, names, nesting, and isolation
//! 3. [End of a response](end_of_response): delivery and its levels
//! 4. [Resources](resources): captured values and their lifetime
//! 5. [Durability](durability): `before_response`, queues, and the transactional outbox
//! 6. [Recipes](recipes)
//!
//! Setting up an app:
//!
//! 7. [Layer order](layer_order): the position of the layer among other layers
//! 8. [Limits](limits): timeouts, concurrency, and backpressure
//! 9. [Graceful shutdown](shutdown)
//! 10. [Observability](observing): spans, events, metrics, and observers
//! 11. [Testing](crate::testing)
//! 12. [Platforms](platforms) that freeze, end, or stop a process
//!
//! [Migrating](migrating) from another framework: Laravel, Starlette and FastAPI, Next.js, Express and
//! Fastify, PHP-FPM, or `tokio::spawn`.
//!
//! The modules [`serve`](mod@crate::serve) and [`sent`](crate::sent) also start with a page.
//!
//! The code on these pages compiles, and runs if it is not a server that runs forever. The three kinds of
//! callbacks:
//!
//! ```
//! use axum::{Router, routing::post};
//! use axum_defer::{DeferLayer, before_response, defer};
//!
//! async fn order() -> &'static str {
//!     before_response(async { /* a commit: the client waits for it */ });
//!     defer(async { /* a mail: only after a success */ });
//!     defer(async { /* an audit line: after every response */ }).always();
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

pub mod end_of_response {
    #![doc = include_str!("../docs/end-of-response.md")]
    // Without an empty line before it, the picture would be part of a sentence.
    #![doc = ""]
    #![doc = include_str!("../docs/pictures/when_it_fires.svg")]
}

pub mod resources {
    #![doc = include_str!("../docs/resources.md")]
}

pub mod durability {
    #![doc = include_str!("../docs/durability.md")]
}

pub mod recipes {
    #![doc = include_str!("../docs/recipes.md")]
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

pub mod migrating {
    #![doc = include_str!("../docs/migrating.md")]

    pub mod laravel {
        #![doc = include_str!("../docs/migrating/laravel.md")]
    }

    pub mod starlette {
        #![doc = include_str!("../docs/migrating/starlette.md")]
    }

    pub mod nextjs {
        #![doc = include_str!("../docs/migrating/nextjs.md")]
    }

    pub mod express {
        #![doc = include_str!("../docs/migrating/express.md")]
    }

    pub mod php_fpm {
        #![doc = include_str!("../docs/migrating/php-fpm.md")]
    }

    pub mod tokio_spawn {
        #![doc = include_str!("../docs/migrating/tokio-spawn.md")]
    }
}

/// Compiles the code in the README, which uses the feature `serve`.
#[cfg(all(doctest, feature = "serve"))]
#[doc = include_str!("../README.md")]
mod readme {}
