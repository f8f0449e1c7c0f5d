//! A mail server that accepts connections and never responds.

use crate::{mail_server::MailServer, running_shop::RunningShop};

const ORDERS: usize = 40;
/// `MAX_CONNECTIONS` in mail.rs.
const MAX_CONNECTIONS: usize = 16;

#[tokio::test]
async fn silent_mail_server_delays_only_mail() {
    let shop = RunningShop::start_with("mail_outage", MailServer::silent().await).await;
    let ada = shop.user("ada@example.org").await;
    for _ in 0..ORDERS {
        ada.order(b"abc").await;
    }

    let orders = ORDERS as i64;
    let audited = "SELECT count(*) FROM audit WHERE action = 'order'";
    shop.wait_for(orders, audited).await;
    let checksums = "SELECT count(*) FROM orders WHERE checksum IS NOT NULL";
    shop.wait_for(orders, checksums).await;
    while ada.get_json("/").await["orders"] != orders {
        tokio::task::yield_now().await;
    }
    assert_eq!(shop.mail.connections(), MAX_CONNECTIONS);
}
