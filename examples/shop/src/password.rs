//! Password hashing with Argon2id, which is slow and uses much memory by design.

use std::{num::NonZero, sync::Arc, thread};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, SaltString, rand_core::OsRng},
};
use tokio::sync::Semaphore;

use crate::{error::AppError, token};

#[derive(Clone)]
pub struct Passwords {
    hashing: Argon2<'static>,
    /// Limits concurrent hashes, because each uses 19 MiB and a CPU.
    permits: Arc<Semaphore>,
    /// Verified for an unknown user, so that the response time does not reveal which users exist.
    dummy_hash: Arc<str>,
}

impl Passwords {
    pub fn new(params: Params) -> Result<Self, Box<dyn std::error::Error>> {
        let hashing = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy_hash = hash(&hashing, &token::random()).map_err(|error| error.to_string())?;
        let permits = thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            hashing,
            permits: Arc::new(Semaphore::new(permits)),
            dummy_hash: dummy_hash.into(),
        })
    }

    pub async fn hash(&self, password: String) -> Result<String, AppError> {
        let hashing = self.hashing.clone();
        let hashed = self.run(move || hash(&hashing, &password)).await?;
        hashed.map_err(|error| AppError::Internal(error.to_string().into()))
    }

    /// Returns `true` if the password matches the hash. Without a hash, returns `false` in the same
    /// time.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, AppError> {
        let hashing = self.hashing.clone();
        let user_exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy_hash.to_string());
        let verify = move || {
            let hash = PasswordHash::new(&hash)?;
            hashing.verify_password(password.as_bytes(), &hash)
        };
        match self.run(verify).await? {
            Ok(()) => Ok(user_exists),
            Err(password_hash::Error::Password) => Ok(false),
            Err(error) => Err(AppError::Internal(error.to_string().into())),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AppError> {
        let permit = self.permits.clone().acquire_owned().await?;
        // The thread holds the permit, because it continues if the client disconnects.
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        Ok(task.await?)
    }
}

fn hash(hashing: &Argon2<'_>, password: &str) -> Result<String, password_hash::Error> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = hashing.hash_password(password.as_bytes(), &salt)?;
    Ok(hash.to_string())
}
