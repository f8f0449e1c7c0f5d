//! Sessions, and the extractor of the logged-in user.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use sha2::{Digest, Sha256};
use sqlx::{Sqlite, Transaction};

use crate::{error::AppError, state::App, token};

const WEEK: i64 = 7 * 24 * 60 * 60;

/// The logged-in user. Owns its data, so that a callback can use it.
#[derive(Clone)]
pub struct User {
    pub id: i64,
    pub email: String,
}

impl FromRequestParts<App> for User {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, AppError> {
        let token = bearer_token(&parts.headers).ok_or(AppError::NoSession)?;
        let user: Option<(i64, String)> = sqlx::query_as(
            "SELECT users.id, users.email FROM sessions JOIN users ON users.id = sessions.user
             WHERE sessions.token = ? AND sessions.expires_at > unixepoch()",
        )
        .bind(hash(token))
        .fetch_optional(&app.database.reader)
        .await?;
        let (id, email) = user.ok_or(AppError::NoSession)?;
        Ok(Self { id, email })
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("Bearer")
        .then_some(token.trim_start())
}

/// Opens a session as part of `transaction` and returns its token.
pub async fn open(
    transaction: &mut Transaction<'_, Sqlite>,
    user: i64,
) -> Result<String, sqlx::Error> {
    let token = token::random();
    sqlx::query("INSERT INTO sessions (token, user, expires_at) VALUES (?, ?, unixepoch() + ?)")
        .bind(hash(&token))
        .bind(user)
        .bind(WEEK)
        .execute(&mut **transaction)
        .await?;
    Ok(token)
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}
