//! A commit that fails.

use reqwest::StatusCode;
use sqlx::{AssertSqlSafe, SqlitePool};

use crate::running_shop::RunningShop;

pub const UNLUCKY_BYTES: usize = 666;

/// From now on, an order of so many bytes makes a promise that is looked at in the commit, and not kept.
pub async fn make_some_commits_fail(database: &SqlitePool) {
    let trigger = format!(
        "CREATE TABLE promises (kept INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER unlucky AFTER INSERT ON orders WHEN NEW.bytes = {UNLUCKY_BYTES}
             BEGIN INSERT INTO promises VALUES (-1); END;"
    );
    sqlx::raw_sql(AssertSqlSafe(trigger))
        .execute(database)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_client_is_told_and_there_is_no_order_no_mail_and_no_document() {
    let shop = RunningShop::start("commit").await;
    let ada = shop.user("ada@example.org").await;
    make_some_commits_fail(&shop.database).await;

    let response = ada.upload(vec![b'x'; UNLUCKY_BYTES]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.bytes().await.unwrap(), "");
    shop.rest().await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 0);
    assert_eq!(shop.documents(), 0);
    let letters = shop.mail.letters();
    assert!(letters.iter().all(|letter| letter.subject == "Welcome"));
    let audited = shop.audited().await;
    let row = audited.last().unwrap();
    assert_eq!((row.0.as_str(), row.1), ("order", Some(503)));

    // The one connection that writes has not kept the failed transaction.
    ada.order(b"abc").await;
    shop.rest().await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(shop.documents(), 1);
    assert_eq!(shop.mail.letters().len(), letters.len() + 1);
}
