//! Empty. The tests are next to this file.
