//! Each route, when it goes well and when it does not.

use reqwest::StatusCode;
use serde_json::json;
use shop::MAX_DOCUMENT;

use crate::{client::PASSWORD, mail_server::Letter, running_shop::RunningShop};

/// SHA-256 of "abc", as in the standard.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn audited(action: &str, status: i64) -> (String, Option<i64>, String) {
    (action.to_owned(), Some(status), "Sent".to_owned())
}

#[tokio::test]
async fn who_signs_up_has_a_mail_and_who_is_refused_has_none() {
    let shop = RunningShop::start("sign_up").await;
    let client = shop.client();
    client.sign_up("ada@example.org").await;
    shop.rest().await;

    for (email, password, refused) in [
        ("ada@example.org", PASSWORD, StatusCode::CONFLICT),
        ("ADA@example.org", PASSWORD, StatusCode::CONFLICT),
        ("nobody", PASSWORD, StatusCode::UNPROCESSABLE_ENTITY),
        (
            "alan@example.org",
            "short",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        let user = json!({ "email": email, "password": password });
        assert_eq!(client.post("/users", &user).await.status(), refused);
        shop.rest().await;
    }
    assert_eq!(
        shop.mail.letters(),
        [Letter {
            to: "ada@example.org".to_owned(),
            subject: "Welcome".to_owned()
        }]
    );
    let statuses = [201, 409, 409, 422, 422];
    assert_eq!(
        shop.audited().await,
        statuses.map(|status| audited("sign-up", status))
    );
    assert_eq!(shop.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_look_the_same_and_are_in_the_log() {
    let shop = RunningShop::start("log_in").await;
    let mut client = shop.client();
    client.sign_up("ada@example.org").await;
    shop.rest().await;

    let mut answers = Vec::new();
    for (email, password) in [
        ("ada@example.org", "wrong horse battery"),
        ("alan@example.org", PASSWORD),
    ] {
        let credentials = json!({ "email": email, "password": password });
        let response = client.post("/sessions", &credentials).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        answers.push(response.text().await.unwrap());
        shop.rest().await;
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(shop.count("SELECT count(*) FROM sessions").await, 0);

    client.log_in("ada@example.org").await;
    shop.rest().await;
    assert_eq!(
        shop.audited().await[1..],
        [401, 401, 200].map(|status| audited("log-in", status))
    );
    // Neither a password nor a token is in the database.
    let kept = "SELECT count(*) FROM users, sessions WHERE instr(password, 'horse') > 0
        OR lower(hex(token)) = ?";
    let kept = sqlx::query_scalar(kept).bind(&client.token);
    let kept: i64 = kept.fetch_one(&shop.database).await.unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn without_a_valid_session_nothing_is_ordered_or_seen() {
    let shop = RunningShop::start("session").await;
    let mut client = shop.user("ada@example.org").await;
    shop.rest().await;
    sqlx::query("UPDATE sessions SET expires_at = unixepoch()")
        .execute(&shop.database)
        .await
        .unwrap();
    let expired = client.token.clone();
    for token in [expired, "0".repeat(64), String::new()] {
        client.token = token;
        for path in ["/orders", "/orders/1"] {
            let response = client.get(path).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
        let response = client.upload(b"abc".to_vec()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let response = client.http.get(client.url("/orders")).send().await;
    assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(shop.documents(), 0);

    // The next log-in takes the expired one away.
    client.log_in("ada@example.org").await;
    shop.rest().await;
    assert_eq!(shop.count("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn an_order_is_listed_with_its_checksum_and_downloaded_by_its_owner_alone() {
    let shop = RunningShop::start("orders").await;
    let ada = shop.user("ada@example.org").await;
    let alan = shop.user("alan@example.org").await;
    let order = ada.order(b"abc").await;
    shop.rest().await;

    let listed = json!([{ "id": order, "bytes": 3, "checksum": ABC }]);
    assert_eq!(ada.get_json("/orders").await, listed);
    assert_eq!(alan.get_json("/orders").await, json!([]));
    let totals = json!({ "orders": 1, "bytes": 3 });
    assert_eq!(shop.client().get_json("/").await, totals);

    let path = format!("/orders/{order}");
    let response = ada.get(&path).await;
    assert_eq!(response.headers()["content-disposition"], "attachment");
    assert_eq!(response.bytes().await.unwrap(), "abc");
    shop.rest().await;
    assert_eq!(alan.get(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        ada.get("/orders/4711").await.status(),
        StatusCode::NOT_FOUND
    );
    shop.rest().await;

    let letters = shop.mail.letters();
    let receipts = letters.iter().filter(|letter| letter.subject != "Welcome");
    let receipts: Vec<_> = receipts.collect();
    assert_eq!(receipts.len(), 1);
    assert_eq!(receipts[0].to, "ada@example.org");
    assert_eq!(receipts[0].subject, format!("Order {order}"));
    let audited = shop.audited().await;
    let downloads: Vec<_> = audited.iter().filter(|row| row.0 == "download").collect();
    let statuses: Vec<_> = downloads.iter().map(|row| row.1).collect();
    assert_eq!(statuses, [Some(200), Some(404), Some(404)]);
}

#[tokio::test]
async fn a_document_that_is_too_large_or_empty_is_refused_and_not_kept() {
    let shop = RunningShop::start("documents").await;
    let ada = shop.user("ada@example.org").await;
    let response = ada.upload(vec![b'x'; MAX_DOCUMENT]).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let response = ada.upload(vec![b'x'; MAX_DOCUMENT + 1]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let response = ada.upload(Vec::new()).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    shop.rest().await;
    assert_eq!(shop.documents(), 1);
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test]
async fn the_live_view_is_there_and_closed_to_proxies() {
    let shop = RunningShop::start("live").await;
    let client = shop.client();
    client.sign_up("ada@example.org").await;
    shop.rest().await;
    let page = client.get("/admin/deferred/view").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("welcome mail"));
    // Who comes through a proxy comes from elsewhere.
    let proxied = client.http.get(client.url("/admin/deferred/view"));
    let proxied = client.send(proxied.header("x-forwarded-for", "192.0.2.1"));
    assert_eq!(proxied.await.status(), StatusCode::FORBIDDEN);
}
