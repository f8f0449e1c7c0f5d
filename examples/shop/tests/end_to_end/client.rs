//! A client of the shop.

use std::net::SocketAddr;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

pub const PASSWORD: &str = "correct horse battery";

#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub address: SocketAddr,
    pub token: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            http: reqwest::Client::new(),
            address,
            token: String::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.http.get(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    pub async fn upload(&self, document: Vec<u8>) -> Response {
        let request = self.http.post(self.url("/orders"));
        self.send(request.body(document)).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn send(&self, request: RequestBuilder) -> Response {
        request.bearer_auth(&self.token).send().await.unwrap()
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub async fn sign_up(&self, email: &str) {
        let user = json!({ "email": email, "password": PASSWORD });
        let response = self.post("/users", &user).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{email}");
    }

    pub async fn log_in(&mut self, email: &str) {
        let user = json!({ "email": email, "password": PASSWORD });
        let response = self.post("/sessions", &user).await;
        assert_eq!(response.status(), StatusCode::OK, "{email}");
        let session: Value = response.json().await.unwrap();
        self.token = session["token"].as_str().unwrap().to_owned();
    }

    /// Places an order and returns its number.
    pub async fn order(&self, document: &[u8]) -> i64 {
        let response = self.upload(document.to_owned()).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let created: Value = response.json().await.unwrap();
        created["order"].as_i64().unwrap()
    }
}
