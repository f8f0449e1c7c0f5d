//! `POST /sessions`: returns a session token. Failed attempts are in the audit log.

use axum::{Json, extract::State};
use axum_defer::defer;
use serde::{Deserialize, Serialize};

use crate::{
    audit::{Entry, audit},
    database::{Database, commit_before_response},
    error::AppError,
    session,
    state::App,
};

#[derive(Deserialize)]
pub struct Credentials {
    email: String,
    password: String,
}

#[derive(Serialize)]
pub struct Session {
    token: String,
}

pub async fn log_in(
    State(app): State<App>,
    Json(credentials): Json<Credentials>,
) -> Result<Json<Session>, AppError> {
    let Credentials { email, password } = credentials;
    audit(
        &app.database,
        Entry {
            action: "log-in",
            email: email.clone(),
            order: None,
        },
    );
    let user: Option<(i64, String)> =
        sqlx::query_as("SELECT id, password FROM users WHERE email = ?")
            .bind(email)
            .fetch_optional(&app.database.reader)
            .await?;
    let (id, hash) = user.unzip();
    let is_correct = app.passwords.verify(password, hash).await?;
    let id = id
        .filter(|_| is_correct)
        .ok_or(AppError::WrongCredentials)?;

    let mut transaction = app.database.begin().await?;
    let token = session::open(&mut transaction, id).await?;
    // The token is valid before the client receives it.
    commit_before_response(transaction);

    defer(delete_expired_sessions(app.database))
        .name("expired sessions")
        // One cleanup is enough for many concurrent log-ins.
        .unique();
    Ok(Json(Session { token }))
}

async fn delete_expired_sessions(database: Database) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE expires_at <= unixepoch()")
        .execute(&database.writer)
        .await?;
    Ok(())
}
