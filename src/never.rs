//! The type `!`, which stable Rust cannot name.

/// The return type of functions that never return.
pub(crate) type Never = <fn() -> ! as Returns>::Output;

pub trait Returns {
    type Output;
}

impl<T> Returns for fn() -> T {
    type Output = T;
}
