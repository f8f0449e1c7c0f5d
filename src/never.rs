//! The type `!`, which stable Rust has and can't name.

/// What a function that never returns returns.
pub(crate) type Never = <fn() -> ! as Returns>::Output;

pub trait Returns {
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}
