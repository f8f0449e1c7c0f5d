//! Passwords: hashed with Argon2id, which takes memory and time on purpose.

use std::{num::NonZero, sync::Arc, thread};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, SaltString, rand_core::OsRng},
};
use tokio::sync::Semaphore;

use crate::{refused::Refused, token};

#[derive(Clone)]
pub struct Passwords {
    hashing: Argon2<'static>,
    /// Each takes 19 MiB and a processor: a hundred log-ins at once must not take everything.
    places: Arc<Semaphore>,
    /// The hash that is compared with where there is no such user: how long a log-in takes does
    /// not tell who has signed up.
    nobody: Arc<str>,
}

impl Passwords {
    pub fn new(params: Params) -> Result<Self, Box<dyn std::error::Error>> {
        let hashing = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&hashing, &token::random()).map_err(|error| error.to_string())?;
        let places = thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            hashing,
            places: Arc::new(Semaphore::new(places)),
            nobody: nobody.into(),
        })
    }

    pub async fn hash(&self, password: String) -> Result<String, Refused> {
        let hashing = self.hashing.clone();
        let hashed = self.work(move || hash(&hashing, &password)).await?;
        hashed.map_err(|error| Refused::Failed(error.to_string().into()))
    }

    /// Whether it is the password of somebody whose `hash` this is.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Refused> {
        let hashing = self.hashing.clone();
        let is_somebody = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.to_string());
        let is_right = move || {
            let hash = PasswordHash::new(&hash)?;
            hashing.verify_password(password.as_bytes(), &hash)
        };
        match self.work(is_right).await? {
            Ok(()) => Ok(is_somebody),
            Err(password_hash::Error::Password) => Ok(false),
            Err(error) => Err(Refused::Failed(error.to_string().into())),
        }
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let place = self.places.clone().acquire_owned().await?;
        // The place goes along: if the client goes away, the thread works on.
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        Ok(done.await?)
    }
}

fn hash(hashing: &Argon2<'_>, password: &str) -> Result<String, password_hash::Error> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = hashing.hash_password(password.as_bytes(), &salt)?;
    Ok(hash.to_string())
}
