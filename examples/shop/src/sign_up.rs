//! `POST /users`: a mail of welcome, and only to who has really signed up.

use axum::{Json, extract::State, http::StatusCode};
use axum_defer::defer;
use lettre::Address;
use serde::Deserialize;

use crate::{
    audit::{Entry, audit},
    database::commit_before_response,
    refused::Refused,
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
) -> Result<StatusCode, Refused> {
    audit(
        &app.database,
        Entry {
            action: "sign-up",
            who: user.email.clone(),
            order: None,
        },
    );
    let address: Address = user
        .email
        .parse()
        .map_err(|_| Refused::Invalid("this is no mail address"))?;
    if !(12..=128).contains(&user.password.chars().count()) {
        return Err(Refused::Invalid("a password has 12 to 128 characters"));
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
        return Err(Refused::EmailTaken);
    }
    commit_before_response(transaction);

    defer(app.mail.send(address, "Welcome".to_owned())).name("welcome mail");
    Ok(StatusCode::CREATED)
}
