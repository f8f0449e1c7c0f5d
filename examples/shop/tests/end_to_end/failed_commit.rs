//! Transactions that fail.

use reqwest::StatusCode;
use sqlx::{AssertSqlSafe, SqlitePool};

use crate::running_shop::RunningShop;

pub const FAILING_BYTES: usize = 666;

/// Makes the commit of an order of `FAILING_BYTES` bytes fail, with a foreign key that is checked
/// only then.
pub async fn make_commits_fail(database: &SqlitePool) {
    let trigger = format!(
        "CREATE TABLE checks (id INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER failing AFTER INSERT ON orders WHEN NEW.bytes = {FAILING_BYTES}
             BEGIN INSERT INTO checks VALUES (-1); END;"
    );
    sqlx::raw_sql(AssertSqlSafe(trigger))
        .execute(database)
        .await
        .unwrap();
}

#[tokio::test]
async fn failed_commit_returns_error_page_and_leaves_nothing() {
    let shop = RunningShop::start("commit").await;
    let ada = shop.user("ada@example.org").await;
    make_commits_fail(&shop.database).await;

    let response = ada.upload(vec![b'x'; FAILING_BYTES]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.text().await.unwrap(), "please try again later");
    shop.wait_idle().await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 0);
    assert_eq!(shop.documents(), 0);
    let letters = shop.mail.letters();
    assert!(letters.iter().all(|letter| letter.subject == "Welcome"));
    let audited = shop.audited().await;
    let row = audited.last().unwrap();
    assert_eq!((row.0.as_str(), row.1), ("order", Some(503)));

    // The only writing connection is not stuck in the failed transaction.
    ada.order(b"abc").await;
    shop.wait_idle().await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(shop.documents(), 1);
    assert_eq!(shop.mail.letters().len(), letters.len() + 1);
}

#[tokio::test]
async fn order_after_full_disk_is_created() {
    let shop = RunningShop::start("full_disk").await;
    let ada = shop.user("ada@example.org").await;
    // Rolls the transaction back inside SQLite, as a full disk does.
    let full = "CREATE TRIGGER full BEFORE INSERT ON orders WHEN NEW.bytes = 2
        BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END";
    sqlx::raw_sql(full).execute(&shop.database).await.unwrap();

    let response = ada.upload(vec![b'x'; 2]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    ada.order(b"abc").await;
}
