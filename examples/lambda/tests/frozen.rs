//! The app with a fake of Lambda's runtime and extensions APIs, which freezes the process (SIGSTOP)
//! when the runtime and all extensions have requested the next event.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>,
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>

use std::{
    process::{Child, Command},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, oneshot},
};

/// Events that the platform observes, in order.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Registered,
    Answered(u64),
    /// The runtime and all extensions have requested the next event.
    Frozen,
    Thawed,
    Mailed(String),
}

use Seen::{Answered, Frozen, Mailed, Registered, Thawed};

/// Messages to the platform.
enum Message {
    Registration,
    RuntimeNext(oneshot::Sender<Response>),
    ExtensionNext(oneshot::Sender<Response>),
    Response {
        id: u64,
        body: Value,
    },
    Error(String),
    Letter {
        text: String,
        received: oneshot::Sender<()>,
    },
}

type Messages = mpsc::UnboundedSender<Message>;

async fn register(State(messages): State<Messages>) -> impl IntoResponse {
    messages.send(Message::Registration).unwrap();
    let function = json!({"functionName": "shop", "functionVersion": "1", "handler": "bootstrap"});
    (
        [("Lambda-Extension-Identifier", "the-only-one")],
        Json(function),
    )
}

async fn next(messages: Messages, request: fn(oneshot::Sender<Response>) -> Message) -> Response {
    let (event, receiver) = oneshot::channel();
    let _ = messages.send(request(event));
    match receiver.await {
        Ok(event) => event,
        // The test is over.
        Err(_) => std::future::pending().await,
    }
}

async fn responded(
    State(messages): State<Messages>,
    Path(id): Path<u64>,
    body: Bytes,
) -> StatusCode {
    let body = serde_json::from_slice(&body).unwrap();
    messages.send(Message::Response { id, body }).unwrap();
    StatusCode::ACCEPTED
}

async fn failed(State(messages): State<Messages>, error: Bytes) -> StatusCode {
    let error = String::from_utf8_lossy(&error).into_owned();
    messages.send(Message::Error(error)).unwrap();
    StatusCode::ACCEPTED
}

fn api(messages: Messages) -> Router {
    let for_runtimes = |State(messages)| next(messages, Message::RuntimeNext);
    let for_extensions = |State(messages)| next(messages, Message::ExtensionNext);
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(for_runtimes))
        .route(
            "/2018-06-01/runtime/invocation/{id}/response",
            post(responded),
        )
        .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
        .route("/2018-06-01/runtime/init/error", post(failed))
        .route("/2020-01-01/extension/register", post(register))
        .route("/2020-01-01/extension/event/next", get(for_extensions))
        .route("/2020-01-01/extension/init/error", post(failed))
        .route("/2020-01-01/extension/exit/error", post(failed))
        .with_state(messages)
}

/// Receives letters and acknowledges each one when the test does.
async fn receive_mail(listener: TcpListener, messages: Messages) {
    while let Ok((mut sender, _)) = listener.accept().await {
        let messages = messages.clone();
        tokio::spawn(async move {
            let mut text = String::new();
            sender.read_to_string(&mut text).await.unwrap();
            let (received, acknowledged) = oneshot::channel();
            messages.send(Message::Letter { text, received }).unwrap();
            if acknowledged.await.is_ok() {
                sender.write_all(b".").await.unwrap();
            }
        });
    }
}

/// The event that API Gateway creates for a request.
fn event() -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/orders",
        "rawQueryString": "",
        "headers": {"host": "shop.example"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": "shop.example",
            "http": {
                "method": "POST",
                "path": "/orders",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "test"
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2026:19:03:58 +0000",
            "timeEpoch": 1773342238000u64
        },
        "isBase64Encoded": false
    })
}

const DEADLINE: &str = "4102444800000";

fn invocation(id: u64) -> Response {
    let head = [
        ("lambda-runtime-aws-request-id", id.to_string()),
        ("lambda-runtime-deadline-ms", DEADLINE.to_owned()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:shop".to_owned(),
        ),
    ];
    (head, Json(event())).into_response()
}

fn invoke_event(id: u64) -> Response {
    Json(json!({
        "eventType": "INVOKE",
        "deadlineMs": DEADLINE.parse::<u64>().unwrap(),
        "requestId": id.to_string(),
        "invokedFunctionArn": "arn:aws:lambda:shop",
        "tracing": {"type": "X-Amzn-Trace-Id", "value": ""}
    }))
    .into_response()
}

struct Function(Child);

impl Function {
    fn start(api: &str, mail_server: &str, with_wait_until: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lambda"));
        command
            .env("AWS_LAMBDA_RUNTIME_API", api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "shop")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("MAIL_SERVER", mail_server)
            .env_remove("WITHOUT_WAIT_UNTIL");
        if !with_wait_until {
            command.env("WITHOUT_WAIT_UNTIL", "1");
        }
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success());
    }

    /// Stops the process and waits until it has stopped, because signals are delivered with a delay.
    async fn freeze(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.0.id());
        loop {
            let stat = std::fs::read_to_string(&stat).unwrap();
            // The state follows the name, which is in parentheses: proc_pid_stat(5).
            if stat.rsplit(") ").next().unwrap().starts_with('T') {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Invokes the function `times` times and freezes it after each invocation.
///
/// The mail server acknowledges letters only after the runtime has requested the next event.
async fn invoke(times: u64, with_wait_until: bool) -> (Vec<Seen>, Platform) {
    let (messages, messages_received) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let api = api(messages.clone());
    tokio::spawn(async move { axum::serve(listener, api).await });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mail_server = listener.local_addr().unwrap().to_string();
    tokio::spawn(receive_mail(listener, messages));
    let mut platform = Platform {
        function: Function::start(&address, &mail_server, with_wait_until),
        messages_received,
        has_extension: false,
        runtime: None,
        extension: None,
        letters: Vec::new(),
        seen: Vec::new(),
    };
    // The end of initialization.
    platform.until_idle().await;
    for id in 1..=times {
        if id > 1 {
            platform.thaw();
        }
        platform.invoke(id);
        platform.until_idle().await;
        platform.function.freeze().await;
        platform.seen.push(Frozen);
    }
    (std::mem::take(&mut platform.seen), platform)
}

struct Platform {
    function: Function,
    messages_received: mpsc::UnboundedReceiver<Message>,
    has_extension: bool,
    /// Requests for the next event.
    runtime: Option<oneshot::Sender<Response>>,
    extension: Option<oneshot::Sender<Response>>,
    /// Unacknowledged letters.
    letters: Vec<(String, oneshot::Sender<()>)>,
    seen: Vec<Seen>,
}

impl Platform {
    fn invoke(&mut self, id: u64) {
        self.runtime.take().unwrap().send(invocation(id)).unwrap();
        if let Some(extension) = self.extension.take() {
            extension.send(invoke_event(id)).unwrap();
        }
    }

    fn thaw(&mut self) {
        self.seen.push(Thawed);
        self.function.signal("CONT");
    }

    async fn until_idle(&mut self) {
        loop {
            let is_extension_idle = self.extension.is_some() || !self.has_extension;
            if self.runtime.is_some() {
                if is_extension_idle {
                    return;
                }
                self.receive_letters();
            }
            self.step().await;
        }
    }

    fn receive_letters(&mut self) {
        for (text, received) in self.letters.drain(..) {
            self.seen.push(Mailed(text));
            received.send(()).unwrap();
        }
    }

    async fn step(&mut self) {
        match self.messages_received.recv().await.unwrap() {
            Message::Registration => {
                self.has_extension = true;
                self.seen.push(Registered);
            }
            Message::RuntimeNext(event) => self.runtime = Some(event),
            Message::ExtensionNext(event) => self.extension = Some(event),
            Message::Response { id, body } => {
                assert_eq!(body["statusCode"], 200, "{body}");
                assert_eq!(body["body"], "thank you");
                self.seen.push(Answered(id));
            }
            Message::Error(error) => panic!("the function failed: {error}"),
            Message::Letter { text, received } => self.letters.push((text, received)),
        }
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(Duration::from_secs(60), future).await;
    output.expect("no timeout")
}

fn mailed(letter: &str) -> Seen {
    Mailed(letter.to_owned())
}

#[tokio::test]
async fn callbacks_with_wait_until_run_before_freeze() {
    let (seen, _platform) = in_time(invoke(2, true)).await;
    let mut expected = vec![Registered];
    for id in [1, 2] {
        expected.push(Answered(id));
        expected.extend(["receipt", "invoice", "survey"].map(mailed));
        expected.push(Frozen);
        if id == 1 {
            expected.push(Thawed);
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn callbacks_without_wait_until_run_after_thaw() {
    let (seen, mut platform) = in_time(invoke(1, false)).await;
    assert_eq!(seen, [Answered(1), Frozen]);

    platform.thaw();
    in_time(async {
        while platform.seen.len() < 4 {
            platform.receive_letters();
            if platform.seen.len() < 4 {
                platform.step().await;
            }
        }
    })
    .await;
    let letters = ["receipt", "invoice", "survey"].map(mailed);
    assert_eq!(platform.seen[0], Thawed);
    assert_eq!(platform.seen[1..], letters);
}
