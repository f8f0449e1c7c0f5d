//! A search index that is sometimes down, with an error that has a source.

use std::{error::Error, fmt, io, time::Duration};

pub(crate) async fn index(order: u64) -> Result<(), IndexDown> {
    tokio::time::sleep(Duration::from_millis(15)).await;
    if order % 6 != 1 {
        return Ok(());
    }
    Err(IndexDown(io::Error::new(
        io::ErrorKind::TimedOut,
        "no answer from 10.0.0.7:9200 within 15 ms",
    )))
}

#[derive(Debug)]
pub(crate) struct IndexDown(io::Error);

impl fmt::Display for IndexDown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the order could not be indexed")
    }
}

impl Error for IndexDown {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
