//! `POST /users`: creates a user and sends a welcome mail.

use axum::{Json, extract::State, http::StatusCode};
use axum_defer::defer;
use lettre::Address;
use serde::Deserialize;

use crate::{
    audit::{Entry, MAX_EMAIL, audit},
    database::commit_before_response,
    error::AppError,
    state::App,
};

#[derive(Deserialize)]
pub struct NewUser {
    email: String,
    password: String,
}

pub async fn sign_up(
    State(app): State<App>,
    Json(user): Json<NewUser>,
) -> Result<StatusCode, AppError> {
    audit(
        &app.database,
        Entry {
            action: "sign-up",
            email: user.email.clone(),
            order: None,
        },
    );
    let address: Option<Address> = user.email.parse().ok();
    let address = address
        .filter(|_| user.email.len() <= MAX_EMAIL)
        .ok_or(AppError::Invalid("invalid mail address"))?;
    if !(12..=128).contains(&user.password.chars().count()) {
        return Err(AppError::Invalid("a password has 12 to 128 characters"));
    }
    let password = app.passwords.hash(user.password).await?;

    let mut transaction = app.database.begin().await?;
    let inserted =
        sqlx::query("INSERT INTO users (email, password) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(address.to_string())
            .bind(password)
            .execute(&mut *transaction)
            .await?;
    if inserted.rows_affected() == 0 {
        return Err(AppError::EmailTaken);
    }
    commit_before_response(transaction);

    defer(app.mail.send(address, "Welcome".to_owned())).name("welcome mail");
    Ok(StatusCode::CREATED)
}
