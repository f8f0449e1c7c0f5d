//! The extensions of a request.

use std::sync::LazyLock;

use http::Extensions;

/// Makes room for as many extensions as a request through a router has, if it has none yet.
///
/// axum puts in three, and the fourth makes the map grow: allocated anew, hashed anew, which costs
/// more than what is put in. A clone of an empty map has the room of the original.
pub(crate) fn make_room(extensions: &mut Extensions) {
    static ROOM: LazyLock<Extensions> = LazyLock::new(|| {
        let mut extensions = Extensions::new();
        extensions.insert([(); 1]);
        extensions.insert([(); 2]);
        extensions.insert([(); 3]);
        extensions.insert([(); 4]);
        extensions.clear();
        extensions
    });
    if extensions.is_empty() {
        extensions.clone_from(&ROOM);
    }
}
