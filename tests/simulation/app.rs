//! The app: handlers that defer, stream, upgrade, fail, and panic.

use std::{convert::Infallible, future::Future, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Path, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use axum_defer::{DeferLayer, DeferredCallbackCollection, Shutdown};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use super::{
    body::{ScriptedBody, Step},
    callbacks::Registrar,
    dice::Dice,
    panics::PLANNED,
    record::World,
};

/// Routes, each with a layer of its own.
pub const ROUTES: u64 = 5;

/// The route whose handlers outlive their connection.
const RUN_TO_COMPLETION: u64 = 3;

#[derive(Clone)]
pub struct App {
    pub world: World,
    pub seed: u64,
    pub panics: bool,
}

impl App {
    pub fn router(&self, layer: &DeferLayer) -> Router {
        let layers = [
            layer.clone(),
            layer.clone().concurrent(),
            layer.clone().max_concurrency(2),
            layer.clone().run_to_completion(),
            layer.clone().max_pending(3),
        ];
        let mut router = Router::new();
        for (number, layer) in layers.into_iter().enumerate() {
            let app = self.clone();
            let handler = move |Path(request): Path<u64>, parts: Request| {
                app.clone().handle(number as u64, request, parts)
            };
            let route = any(handler).layer::<_, Infallible>(layer);
            router = router.route(&format!("/{number}/{{request}}"), route);
        }
        router
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would be `Send` only if axum's extractors were known to be"
    )]
    fn handle(
        self,
        route: u64,
        number: u64,
        request: Request,
    ) -> impl Future<Output = Response> + Send {
        async move { Handler::new(self, route, number).run(request).await }
    }
}

struct Handler {
    registrar: Registrar,
    dice: Dice,
    runs_to_completion: bool,
    /// The body of its response may be pending.
    streams: bool,
}

impl Handler {
    fn new(app: App, route: u64, number: u64) -> Self {
        app.world.handler_started(number);
        let runs_to_completion = route == RUN_TO_COMPLETION;
        if runs_to_completion {
            app.world
                .with_request(number, |request| request.detached = true);
        }
        Self {
            dice: Dice::of(app.seed, number),
            registrar: Registrar {
                world: app.world,
                request: number,
                panics: app.panics,
            },
            runs_to_completion,
            streams: false,
        }
    }

    async fn run(mut self, mut request: Request) -> Response {
        for _ in 0..self.dice.below(4) {
            self.registrar.register(&mut self.dice, 1);
            if self.dice.one_in(4) {
                yield_now().await;
            }
        }
        if self.dice.one_in(3) {
            for _ in 0..=self.dice.below(2) {
                self.registrar.register_before(&mut self.dice);
            }
        }
        if self.dice.one_in(4) {
            let pause = self.dice.pause();
            sleep(pause).await;
        }
        let shutdown = Shutdown::of(request.extensions());
        let body = std::mem::take(request.body_mut());
        if request.headers().contains_key(header::UPGRADE) {
            return self.upgrade(&mut request, shutdown);
        }
        match self.dice.below(4) {
            0 => {
                let _ = body.collect().await;
            }
            1 => self.read_later(body),
            _ => {}
        }
        let response = self.respond(shutdown).await;
        let world = &self.registrar.world;
        world.with_request(self.registrar.request, |request| {
            request.status = Some(response.status().as_u16());
            request.announced = response.body().size_hint().exact();
            if !self.streams {
                request.progress = Some(Instant::now());
            }
        });
        response
    }

    async fn respond(&mut self, shutdown: Option<Shutdown>) -> Response {
        match self.dice.below(40) {
            0..=1 if self.registrar.panics => panic!("{PLANNED}"),
            2..=3 => {
                // For as long as the client has patience; or the server, which can't stop a
                // handler that runs to completion.
                let pause = match self.runs_to_completion {
                    true => self.dice.pause(),
                    false => Duration::from_secs(3_000),
                };
                sleep(pause).await;
                "late".into_response()
            }
            4..=5 => StatusCode::NOT_FOUND.into_response(),
            6 => StatusCode::NO_CONTENT.into_response(),
            7 => ().into_response(),
            8 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            9..=12 => {
                let length = self.dice.pick(&[20_000, 100_000, 300_000]);
                Bytes::from(vec![b'x'; length]).into_response()
            }
            13..=26 => {
                self.streams = true;
                self.stream(shutdown).into_response()
            }
            _ => "hello".into_response(),
        }
    }

    fn stream(&mut self, shutdown: Option<Shutdown>) -> Body {
        let dice = &mut self.dice;
        let mut steps = Vec::new();
        for _ in 0..dice.below(6) {
            steps.push(match dice.below(12) {
                0..=1 => Step::Pause(dice.pause()),
                2 => Step::Register,
                _ => Step::Data(dice.pick(&[0, 1, 200, 2_000, 20_000, 70_000])),
            });
        }
        match dice.below(10) {
            0 => steps.push(Step::Fail),
            1 if self.registrar.panics => steps.push(Step::Panic),
            2 => steps.push(Step::Trailers),
            3 => {
                if let Some(shutdown) = shutdown {
                    steps.push(Step::UntilShutdown(shutdown));
                    steps.push(Step::Data(10));
                }
            }
            _ => {}
        }
        Body::new(ScriptedBody::new(
            steps,
            self.registrar.clone(),
            dice.fork(),
        ))
    }

    /// A task that reads the body of the request, and may defer after its response.
    fn read_later(&mut self, mut body: Body) {
        let (registrar, mut dice) = (self.registrar.clone(), self.dice.fork());
        let scope = DeferredCallbackCollection::current();
        tokio::spawn(async move {
            while let Some(Ok(_)) = body.frame().await {
                sleep(dice.short_pause()).await;
            }
            if let Some(scope) = scope.filter(|_| dice.one_in(2)) {
                registrar.register_late(&scope);
            }
        });
    }

    fn upgrade(&mut self, request: &mut Request, shutdown: Option<Shutdown>) -> Response {
        let upgrade = hyper::upgrade::on(request);
        let mut dice = self.dice.fork();
        let Registrar { world, request, .. } = self.registrar.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            // hyper also gives the connection away after another response than a 101, if it ends.
            world.upgraded(request);
            let mut io = TokioIo::new(upgraded);
            let pause = dice.pause();
            if let Some(shutdown) = shutdown.filter(|_| dice.one_in(2)) {
                tokio::select! {
                    biased;
                    () = shutdown => {}
                    () = sleep(pause) => {}
                }
            } else {
                sleep(pause).await;
            }
            // No timeout of the server covers a client that does not read what the app writes.
            let _ = timeout(Duration::from_secs(60), io.write_all(b"bye")).await;
        });
        let world = &self.registrar.world;
        world.with_request(self.registrar.request, |request| request.status = Some(101));
        let fields = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "simulated"),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
    }
}
