//! The documents: one file per order.

use std::{fs, io, path::PathBuf};

use axum_defer::defer;
use tokio::io::AsyncWriteExt;

use crate::token;

#[derive(Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Returns the path of a document. Names come only from `store`, so clients cannot choose paths.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Stores a document and returns its name. Deletes it if the response is not a success: if the
    /// commit fails, or if the client disconnects and the handler is cancelled.
    pub async fn store(&self, content: &[u8]) -> io::Result<String> {
        let name = token::random();
        let path = self.path(&name);
        // Not with `tokio::fs`: its thread could create the file after the callback has run.
        let file = fs::File::create_new(&path)?;
        defer(async move { tokio::fs::remove_file(path).await })
            .name("remove the document")
            .when(|completion| !completion.is_success());

        let mut file = tokio::fs::File::from_std(file);
        file.write_all(content).await?;
        // Like the commit, the document must be on the disk.
        file.sync_all().await?;
        Ok(name)
    }
}
