//! Stands in for `sent` without that feature, so that the core needs no `cfg`. There are no values of
//! these types.

pub(crate) mod delivery {
    pub(crate) use super::response::DeliveryOutcome;
}

pub(crate) mod response {
    use std::sync::Arc;

    use crate::drain::DrainSource;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[allow(dead_code, reason = "constructed only with the feature `sent`")]
    pub(crate) enum DeliveryOutcome {
        Flushed { bytes: u64 },
        Aborted { bytes: u64 },
    }

    pub(crate) trait OnStall: Send + Sync {
        #[allow(dead_code, reason = "called only with the feature `sent`")]
        fn stalled(&self) -> bool;
    }

    #[derive(Clone, Debug)]
    pub(crate) enum ResponseHandle {}

    impl ResponseHandle {
        pub(crate) fn watch(&self) {
            match *self {}
        }

        pub(crate) fn drain_with(&self, _: &Arc<impl DrainSource + 'static>) {
            match *self {}
        }

        pub(crate) fn scope_opened(&self) {
            match *self {}
        }

        pub(crate) fn on_stall(&self, _: Arc<dyn OnStall>) {
            match *self {}
        }

        pub(crate) fn on_delivery(&self, _: impl FnOnce(DeliveryOutcome) + Send + 'static) {
            match *self {}
        }
    }
}
