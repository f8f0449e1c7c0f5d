//! Empty. The benches are next to this file.
