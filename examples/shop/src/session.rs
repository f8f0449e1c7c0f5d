//! Who asks: the extractor that takes a session's token, and where tokens come from.

use axum::{
    extract::FromRequestParts,
    http::{header::AUTHORIZATION, request::Parts},
};
use sha2::{Digest, Sha256};
use sqlx::{Sqlite, Transaction};

use crate::{refused::Refused, state::App, token};

const A_WEEK: i64 = 7 * 24 * 60 * 60;

/// Somebody who is logged in. Owns what it has, so that a callback can take it along.
#[derive(Clone)]
pub struct User {
    pub id: i64,
    pub email: String,
}

impl FromRequestParts<App> for User {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let header = parts.headers.get(AUTHORIZATION);
        let token = header.and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        let user: Option<(i64, String)> = sqlx::query_as(
            "SELECT users.id, users.email FROM sessions JOIN users ON users.id = sessions.user
             WHERE sessions.token = ? AND sessions.expires_at > unixepoch()",
        )
        .bind(hashed(token.ok_or(Refused::Session)?))
        .fetch_optional(&app.database.reader)
        .await?;
        let (id, email) = user.ok_or(Refused::Session)?;
        Ok(Self { id, email })
    }
}

/// Opens a session, if `transaction` is committed, and returns its token.
pub async fn open(
    transaction: &mut Transaction<'_, Sqlite>,
    user: i64,
) -> Result<String, sqlx::Error> {
    let token = token::random();
    sqlx::query("INSERT INTO sessions (token, user, expires_at) VALUES (?, ?, unixepoch() + ?)")
        .bind(hashed(&token))
        .bind(user)
        .bind(A_WEEK)
        .execute(&mut **transaction)
        .await?;
    Ok(token)
}

fn hashed(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}
