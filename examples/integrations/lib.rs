//! Empty. The examples are next to this file.
