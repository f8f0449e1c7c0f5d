//! Each route, with successes and failures.

use reqwest::StatusCode;
use serde_json::json;
use shop::MAX_DOCUMENT;

use crate::{client::PASSWORD, mail_server::Letter, running_shop::RunningShop};

/// The SHA-256 of "abc" in the standard.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn audited(action: &str, status: i64) -> (String, Option<i64>, String) {
    (action.to_owned(), Some(status), "Complete".to_owned())
}

#[tokio::test]
async fn only_successful_sign_up_sends_mail() {
    let shop = RunningShop::start("sign_up").await;
    let client = shop.client();
    client.sign_up("ada@example.org").await;
    shop.wait_idle().await;

    for (email, password, status) in [
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
        assert_eq!(client.post("/users", &user).await.status(), status);
        shop.wait_idle().await;
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
async fn failed_log_in_is_audited_without_a_reason() {
    let shop = RunningShop::start("log_in").await;
    let mut client = shop.client();
    client.sign_up("ada@example.org").await;
    shop.wait_idle().await;

    let mut bodies = Vec::new();
    for (email, password) in [
        ("ada@example.org", "wrong horse battery"),
        ("alan@example.org", PASSWORD),
    ] {
        let credentials = json!({ "email": email, "password": password });
        let response = client.post("/sessions", &credentials).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        bodies.push(response.text().await.unwrap());
        shop.wait_idle().await;
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(shop.count("SELECT count(*) FROM sessions").await, 0);

    client.log_in("ada@example.org").await;
    shop.wait_idle().await;
    assert_eq!(
        shop.audited().await[1..],
        [401, 401, 200].map(|status| audited("log-in", status))
    );
    // The database contains neither passwords nor tokens.
    let stored = "SELECT count(*) FROM users, sessions WHERE instr(password, 'horse') > 0
        OR lower(hex(token)) = ?";
    let stored = sqlx::query_scalar(stored).bind(&client.token);
    let stored: i64 = stored.fetch_one(&shop.database).await.unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn invalid_session_is_unauthorized() {
    let shop = RunningShop::start("session").await;
    let mut client = shop.user("ada@example.org").await;
    shop.wait_idle().await;
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
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
        let response = client.upload(b"abc".to_vec()).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let response = client.http.get(client.url("/orders")).send().await;
    assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(shop.documents(), 0);

    // The next log-in deletes the expired session.
    client.log_in("ada@example.org").await;
    shop.wait_idle().await;
    assert_eq!(shop.count("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn order_is_visible_only_to_its_owner() {
    let shop = RunningShop::start("orders").await;
    let ada = shop.user("ada@example.org").await;
    let alan = shop.user("alan@example.org").await;
    let order = ada.order(b"abc").await;
    shop.wait_idle().await;

    let listed = json!([{ "id": order, "bytes": 3, "checksum": ABC }]);
    assert_eq!(ada.get_json("/orders").await, listed);
    assert_eq!(alan.get_json("/orders").await, json!([]));
    let totals = json!({ "orders": 1, "bytes": 3 });
    assert_eq!(shop.client().get_json("/").await, totals);

    let path = format!("/orders/{order}");
    let response = ada.get(&path).await;
    assert_eq!(response.headers()["content-disposition"], "attachment");
    assert_eq!(response.bytes().await.unwrap(), "abc");
    shop.wait_idle().await;
    assert_eq!(alan.get(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        ada.get("/orders/4711").await.status(),
        StatusCode::NOT_FOUND
    );
    shop.wait_idle().await;

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
async fn empty_or_large_document_is_rejected() {
    let shop = RunningShop::start("documents").await;
    let ada = shop.user("ada@example.org").await;
    let response = ada.upload(vec![b'x'; MAX_DOCUMENT]).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let response = ada.upload(vec![b'x'; MAX_DOCUMENT + 1]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let response = ada.upload(Vec::new()).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    shop.wait_idle().await;
    assert_eq!(shop.documents(), 1);
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test]
async fn live_view_through_proxy_is_forbidden() {
    let shop = RunningShop::start("live").await;
    let client = shop.client();
    client.sign_up("ada@example.org").await;
    shop.wait_idle().await;
    let page = client.get("/admin/deferred/view").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("welcome mail"));
    // The client behind a proxy may be on another machine.
    let proxied = client.http.get(client.url("/admin/deferred/view"));
    let proxied = client.send(proxied.header("x-forwarded-for", "192.0.2.1"));
    assert_eq!(proxied.await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn authentication_scheme_ignores_case() {
    let shop = RunningShop::start("scheme").await;
    let ada = shop.user("ada@example.org").await;
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let request = ada.http.get(ada.url("/orders"));
        let request = request.header("authorization", format!("{scheme} {}", ada.token));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{scheme}");
    }
}

#[tokio::test]
async fn oversized_credentials_are_not_stored() {
    let shop = RunningShop::start("oversized").await;
    let client = shop.client();
    for path in ["/users", "/sessions"] {
        let long = json!({ "email": "a".repeat(1_000), "password": PASSWORD });
        assert!(client.post(path, &long).await.status().is_client_error());
        let huge = json!({ "email": "a".repeat(1_000_000), "password": PASSWORD });
        let response = client.post(path, &huge).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let domain = format!("{}.org", "a".repeat(60));
    let long = format!("ada@{}", [domain.as_str(); 5].join("."));
    let user = json!({ "email": long, "password": PASSWORD });
    let response = client.post("/users", &user).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    shop.wait_idle().await;
    assert_eq!(
        shop.count("SELECT max(length(email)) FROM audit").await,
        254
    );
}
