//! The documents: a file each, which is there if and only if its order is.

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

    /// Names come from `keep` alone, by way of the database: nothing that a client sends is a path.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a document, and deletes it again if the response is not a success: if the commit fails,
    /// or the client goes away and takes the handler along. Returns its name.
    pub async fn keep(&self, content: &[u8]) -> io::Result<String> {
        let name = token::random();
        let path = self.path(&name);
        // Not with `tokio::fs`, whose thread may come to it when the client and the callback are gone.
        let file = fs::File::create_new(&path)?;
        defer(async move { tokio::fs::remove_file(path).await })
            .name("remove the document")
            .when(|completion| !completion.is_success());

        let mut file = tokio::fs::File::from_std(file);
        file.write_all(content).await?;
        // What is committed is on the disk, and this belongs to it.
        file.sync_all().await?;
        Ok(name)
    }
}
