//! Random responses, servers and callback programs, against a reference model that is too simple
//! to be wrong.
//!
//! `PROPTEST_CASES` says how many; a case that fails is shrunk, printed, and kept beside this file.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, DeferredCallback,
    DeferredCallbackCollection, Delivery, Finished, Level, LostReason, Outcome, defer,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{FileFailurePersistence, TestRunner},
};
use tower::{Service, service_fn};

use crate::support::planned_panics::{PLANNED, silence_planned_panics};

// What is generated.

#[derive(Clone, Debug)]
struct Case {
    head: bool,
    http2: bool,
    status: u16,
    /// Judged as gRPC, by the status in the headers or in the trailers.
    grpc: Option<Grpc>,
    handler: Handler,
    body: BodyPlan,
    consumer: Consumer,
    layer_rule: Option<Rule>,
    concurrent: bool,
    program: Vec<Step>,
    late: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Grpc {
    in_headers: Option<u8>,
    in_trailers: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handler {
    Responds,
    Fails,
    Panics,
    IsDropped,
}

#[derive(Clone, Debug)]
struct BodyPlan {
    parts: Vec<Part>,
    /// `is_end_stream` is true after the last part, so that `None` need not be polled.
    tells_end: bool,
    declared: Declared,
}

#[derive(Clone, Debug)]
enum Part {
    Data(usize),
    Pending,
    Steps(Vec<Step>),
    Trailers,
    Error,
}

/// A length that the response declares, and how far it is off.
#[derive(Clone, Copy, Debug)]
enum Declared {
    Nothing,
    Hint(i64),
    ContentLength(i64),
    NoNumber,
}

#[derive(Clone, Copy, Debug)]
enum Consumer {
    /// The way of hyper's server for the version of the request.
    Hyper,
    /// Polls until there is no more.
    Collector,
    /// Polls so many frames and drops the body.
    Drops(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Defer {
        name: Option<usize>,
        rule: Option<Rule>,
        does: Does,
    },
    Forget(usize),
    Cancel(usize),
    Rename(usize, usize),
    ChangeRule(usize, Rule),
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Always,
    Never,
    IfDelivered,
    Panics,
}

#[derive(Clone, Debug)]
enum Does {
    Returns,
    Yields,
    Fails,
    Panics,
    PanicsWhenDropped,
    Stalls,
    Steps(Vec<Step>),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn steps(depth: u32, most: usize) -> BoxedStrategy<Vec<Step>> {
    let mut does = vec![
        (6, Just(Does::Returns).boxed()),
        (1, Just(Does::Yields).boxed()),
        (1, Just(Does::Fails).boxed()),
        (1, Just(Does::Panics).boxed()),
        (1, Just(Does::PanicsWhenDropped).boxed()),
        (1, Just(Does::Stalls).boxed()),
    ];
    if depth > 0 {
        does.push((2, steps(depth - 1, 3).prop_map(Does::Steps).boxed()));
    }
    let name = 0..NAMES.len();
    let deferral = (
        prop::option::of(name.clone()),
        prop::option::weighted(0.3, rule()),
        prop::strategy::Union::new_weighted(does),
    );
    let step = prop_oneof![
        6 => deferral.prop_map(|(name, rule, does)| Step::Defer { name, rule, does }),
        1 => name.clone().prop_map(Step::Forget),
        1 => (0..8_usize).prop_map(Step::Cancel),
        1 => (0..8_usize, name).prop_map(|(slot, name)| Step::Rename(slot, name)),
        1 => (0..8_usize, rule()).prop_map(|(slot, rule)| Step::ChangeRule(slot, rule)),
    ];
    prop::collection::vec(step, 0..=most).boxed()
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        3 => Just(Rule::Always),
        1 => Just(Rule::Never),
        1 => Just(Rule::IfDelivered),
        1 => Just(Rule::Panics),
    ]
}

fn body() -> impl Strategy<Value = BodyPlan> {
    let part = prop_oneof![
        4 => select(vec![0, 1, 13, 255, 256, 4096]).prop_map(Part::Data),
        1 => Just(Part::Pending),
        1 => steps(0, 2).prop_map(Part::Steps),
    ];
    let last = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Part::Trailers)),
        1 => Just(Some(Part::Error)),
    ];
    let off = || prop_oneof![4 => Just(0), 1 => -300..300_i64];
    let declared = prop_oneof![
        2 => Just(Declared::Nothing),
        2 => off().prop_map(Declared::Hint),
        2 => off().prop_map(Declared::ContentLength),
        1 => Just(Declared::NoNumber),
    ];
    let parts = prop::collection::vec(part, 0..5);
    (parts, last, any::<bool>(), declared).prop_map(|(mut parts, last, tells_end, declared)| {
        parts.extend(last);
        BodyPlan {
            parts,
            tells_end,
            declared,
        }
    })
}

fn case() -> impl Strategy<Value = Case> {
    let handler = prop_oneof![
        8 => Just(Handler::Responds),
        1 => Just(Handler::Fails),
        1 => Just(Handler::Panics),
        1 => Just(Handler::IsDropped),
    ];
    let consumer = prop_oneof![
        4 => Just(Consumer::Hyper),
        1 => Just(Consumer::Collector),
        2 => (0..5_usize).prop_map(Consumer::Drops),
    ];
    let code = || prop::option::of(select(vec![0, 0, 5]));
    let grpc = (prop::option::weighted(0.2, code()), code());
    let grpc = grpc.prop_map(|(in_headers, in_trailers)| Grpc {
        in_headers: in_headers.flatten(),
        in_trailers,
    });
    let grpc = prop::option::weighted(0.3, grpc);
    let request = (prop::bool::weighted(0.15), any::<bool>(), grpc);
    let status = select(vec![200, 200, 200, 201, 204, 302, 304, 404, 500]);
    let layer_rule = prop::option::weighted(0.2, rule());
    let programs = (
        steps(2, 6),
        prop_oneof![Just(Vec::new()).boxed(), steps(1, 3)],
    );
    (
        request,
        status,
        handler,
        body(),
        consumer,
        layer_rule,
        prop::bool::weighted(0.1),
        programs,
    )
        .prop_map(
            |(
                (head, http2, grpc),
                status,
                handler,
                body,
                consumer,
                layer_rule,
                concurrent,
                programs,
            )| {
                let (program, late) = programs;
                Case {
                    head,
                    http2,
                    status,
                    grpc,
                    handler,
                    body,
                    consumer,
                    layer_rule,
                    concurrent,
                    program,
                    late,
                }
            },
        )
}

// The reference model.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ran,
    Failed,
    Panicked,
    TimedOut,
    Skipped,
    Cancelled,
    Replaced,
    Lost,
}

/// A callback by the order of its registration, and how it ended.
type Log = Vec<(usize, End)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    status: Option<u16>,
    success: bool,
    delivery: Delivery,
    bytes: u64,
}

struct Waiting {
    id: usize,
    name: Option<usize>,
    rule: Option<Rule>,
    does: Does,
}

#[derive(Default)]
struct Reference {
    registered: usize,
    /// Those whose handles are gone.
    without_handle: Range<usize>,
    waiting: Vec<Waiting>,
    /// Belongs to the runner since the end of the response, so edits do not reach it.
    taken: Option<Waiting>,
    log: Log,
    started: usize,
}

impl Reference {
    fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            self.apply_one(step.clone());
        }
    }

    fn apply_one(&mut self, step: Step) {
        match step {
            Step::Defer { name, rule, does } => {
                let id = self.registered;
                self.registered += 1;
                self.waiting.push(Waiting {
                    id,
                    name: None,
                    rule,
                    does,
                });
                if let Some(name) = name {
                    self.rename(id, name);
                }
            }
            Step::Forget(name) => {
                let named = self.waiting.iter().find(|other| other.name == Some(name));
                if let Some(id) = named.map(|named| named.id) {
                    self.take_out(id, End::Cancelled);
                }
            }
            Step::Cancel(slot) => {
                if let Some(id) = self.in_slot(slot) {
                    self.take_out(id, End::Cancelled);
                }
            }
            Step::Rename(slot, name) => {
                if let Some(id) = self.in_slot(slot) {
                    self.rename(id, name);
                }
            }
            Step::ChangeRule(slot, rule) => {
                let id = self.in_slot(slot);
                for waiting in &mut self.waiting {
                    if Some(waiting.id) == id {
                        waiting.rule = Some(rule);
                    }
                }
            }
        }
    }

    fn in_slot(&self, slot: usize) -> Option<usize> {
        slot.checked_rem(self.registered)
            .filter(|id| !self.without_handle.contains(id))
    }

    fn rename(&mut self, id: usize, name: usize) {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return;
        };
        self.waiting[index].name = Some(name);
        // The last registration wins.
        let namesakes = self.waiting.iter().filter(|other| other.name == Some(name));
        let mut namesakes: Vec<usize> = namesakes.map(|namesake| namesake.id).collect();
        namesakes.sort_unstable();
        namesakes.pop();
        for loser in namesakes {
            self.take_out(loser, End::Replaced);
        }
    }

    fn take_out(&mut self, id: usize, end: End) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.id != id);
        if self.waiting.len() < before {
            self.log.push((id, end));
        }
    }

    /// The scope is decided, and the runner receives the first callback.
    fn decide(&mut self) {
        if !self.waiting.is_empty() {
            self.taken = Some(self.waiting.remove(0));
        }
    }

    fn next(&mut self) -> Option<Waiting> {
        let first = |waiting: &mut Vec<_>| (!waiting.is_empty()).then(|| waiting.remove(0));
        self.taken.take().or_else(|| first(&mut self.waiting))
    }

    fn run_all(&mut self, verdict: Verdict, layer_rule: Option<Rule>) {
        while let Some(callback) = self.next() {
            let end = match callback.rule.or(layer_rule) {
                Some(Rule::Panics) => End::Panicked,
                Some(Rule::Never) => End::Skipped,
                Some(Rule::IfDelivered) if verdict.delivery != Delivery::Complete => End::Skipped,
                None if !verdict.success => End::Skipped,
                _ => {
                    self.started += 1;
                    match callback.does {
                        Does::Returns | Does::Yields | Does::PanicsWhenDropped => End::Ran,
                        Does::Fails => End::Failed,
                        Does::Panics => End::Panicked,
                        Does::Stalls => End::TimedOut,
                        Does::Steps(steps) => {
                            self.apply(&steps);
                            End::Ran
                        }
                    }
                }
            };
            self.log.push((callback.id, end));
        }
    }
}

/// What a consumer got out of the body, up to where it dropped it.
#[derive(Clone, Copy, Debug)]
enum Got {
    Data { length: u64, ended: bool },
    Trailers,
    Error,
    None,
}

impl Case {
    fn length(&self) -> i64 {
        let parts = self.body.parts.iter();
        let lengths = parts.map(|part| match part {
            Part::Data(length) => *length as i64,
            _ => 0,
        });
        lengths.sum()
    }

    fn hint(&self) -> Option<u64> {
        match self.body.declared {
            Declared::Hint(off) => Some((self.length() + off).max(0) as u64),
            _ => None,
        }
    }

    fn content_length(&self) -> Option<u64> {
        match self.body.declared {
            Declared::ContentLength(off) => Some((self.length() + off).max(0) as u64),
            _ => None,
        }
    }

    fn is_bodiless(&self) -> bool {
        self.head || [204, 304].contains(&self.status)
    }

    fn declared(&self) -> Option<u64> {
        self.hint()
            .or(self.content_length())
            .filter(|_| !self.is_bodiless())
    }

    /// Returns the row of the table that a response falls under, and how many frames it had when it
    /// was decided: `None` if its body was dropped before that.
    fn verdict(&self, ended_from_the_start: bool, got: &[Got]) -> (Verdict, Option<usize>) {
        let declared = self.declared();
        let mut success = self.status < 400;
        let awaits_trailers = match self.grpc {
            None => false,
            Some(grpc) => {
                if let Some(code) = grpc.in_headers {
                    success = code == 0;
                }
                grpc.in_headers.is_none()
            }
        };
        let whole = |bytes: u64| declared.is_none_or(|declared| bytes >= declared);
        let mut bytes = 0;
        let mut delivery = None;
        let mut trailers_came = false;
        if ended_from_the_start {
            delivery = Some(if whole(0) {
                Delivery::Complete
            } else {
                Delivery::BodyError
            });
        } else if !self.http2 && declared == Some(0) {
            delivery = Some(Delivery::Complete);
        }
        let mut decided_after = delivery.map(|_| 0);
        for (index, got) in got.iter().enumerate() {
            if delivery.is_some() {
                break;
            }
            decided_after = Some(index + 1);
            let over = match *got {
                Got::Error => {
                    delivery = Some(Delivery::BodyError);
                    break;
                }
                Got::Data { length, ended } => {
                    bytes += length;
                    ended || (!self.http2 && declared.is_some_and(|declared| bytes >= declared))
                }
                Got::Trailers | Got::None => true,
            };
            if matches!(got, Got::Trailers) && awaits_trailers {
                // They have the last word, whatever the status line says.
                let code = self.grpc.and_then(|grpc| grpc.in_trailers);
                success = code.unwrap_or(0) == 0;
                trailers_came = true;
            }
            if over {
                delivery = Some(if whole(bytes) {
                    Delivery::Complete
                } else {
                    Delivery::BodyError
                });
            }
        }
        let all_there = declared.is_some_and(|declared| bytes >= declared) && !awaits_trailers;
        let dropped = if self.is_bodiless() || all_there {
            Delivery::Complete
        } else {
            Delivery::Aborted
        };
        if awaits_trailers && !trailers_came && delivery == Some(Delivery::BodyError) {
            success = false;
        }
        if !self.http2 {
            bytes = declared.map_or(bytes, |declared| bytes.min(declared));
        }
        let verdict = Verdict {
            status: Some(self.status),
            success,
            delivery: delivery.unwrap_or(dropped),
            bytes,
        };
        (verdict, decided_after.filter(|_| delivery.is_some()))
    }
}

const NO_RESPONSE: Verdict = Verdict {
    status: None,
    success: false,
    delivery: Delivery::NoResponse,
    bytes: 0,
};

// The real thing.

/// What all parts of one case share.
#[derive(Clone, Default)]
struct World(Arc<Shared>);

#[derive(Default)]
struct Shared {
    handles: Mutex<Vec<Option<DeferredCallback>>>,
    log: Mutex<Log>,
    /// Told by the observer; the callback that is dropped next is the one that it is about.
    announced: Mutex<Option<End>>,
    completions: Mutex<Vec<Completion>>,
    collection: Mutex<Option<DeferredCallbackCollection>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn apply(&self, steps: &[Step], collection: Option<&DeferredCallbackCollection>) {
        for step in steps {
            self.apply_one(step.clone(), collection);
        }
    }

    fn apply_one(&self, step: Step, collection: Option<&DeferredCallbackCollection>) {
        match step {
            Step::Defer { name, rule, does } => {
                let mut handles = lock(&self.0.handles);
                let id = handles.len();
                handles.push(None);
                drop(handles);
                let callback = Callback {
                    id,
                    does,
                    world: self.clone(),
                    polled: false,
                };
                let closure = move |completion| {
                    lock(&callback.world.0.completions).push(completion);
                    callback
                };
                let mut handle = match collection {
                    Some(collection) => collection.defer(closure),
                    None => defer(closure),
                };
                if let Some(rule) = rule {
                    handle = set_rule(handle, rule);
                }
                if let Some(name) = name {
                    handle = handle.name(NAMES[name]);
                }
                lock(&self.0.handles)[id] = Some(handle);
            }
            Step::Forget(name) => {
                let current = DeferredCallbackCollection::current();
                let collection = collection.cloned().or(current).expect("inside of a scope");
                let known = collection.contains(NAMES[name]);
                assert_eq!(collection.forget(NAMES[name]), usize::from(known));
            }
            Step::Cancel(slot) => self.with_handle(slot, |handle| {
                handle.cancel();
                handle
            }),
            Step::Rename(slot, name) => self.with_handle(slot, |handle| handle.name(NAMES[name])),
            Step::ChangeRule(slot, rule) => self.with_handle(slot, |handle| set_rule(handle, rule)),
        }
    }

    /// Lets go of the callbacks that wait for their handles; returns which ones those are.
    fn drop_handles_from(&self, first: usize) -> Range<usize> {
        let mut handles = lock(&self.0.handles);
        let first = first.min(handles.len());
        let dropped: Vec<_> = handles[first..].iter_mut().map(Option::take).collect();
        let range = first..handles.len();
        drop(handles);
        drop(dropped);
        range
    }

    /// A callback that uses its own handle while it is being registered has none yet.
    fn with_handle(&self, slot: usize, with: impl FnOnce(DeferredCallback) -> DeferredCallback) {
        let mut handles = lock(&self.0.handles);
        let Some(slot) = slot.checked_rem(handles.len()) else {
            return;
        };
        let handle = handles[slot].take();
        drop(handles);
        let handle = handle.map(with);
        lock(&self.0.handles)[slot] = handle;
    }
}

fn set_rule(handle: DeferredCallback, rule: Rule) -> DeferredCallback {
    match rule {
        Rule::Always => handle.always(),
        rule => handle.when(predicate(rule)),
    }
}

fn predicate(rule: Rule) -> impl Fn(&Completion) -> bool + Send + Sync + 'static {
    move |completion| match rule {
        Rule::Always => true,
        Rule::Never => false,
        Rule::IfDelivered => completion.is_complete(),
        Rule::Panics => panic!("{PLANNED}"),
    }
}

struct Callback {
    id: usize,
    does: Does,
    world: World,
    polled: bool,
}

impl Future for Callback {
    type Output = Result<(), &'static str>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = std::mem::replace(&mut self.polled, true);
        match &self.does {
            Does::Returns | Does::PanicsWhenDropped => Poll::Ready(Ok(())),
            Does::Yields if polled => Poll::Ready(Ok(())),
            Does::Yields => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Does::Fails => Poll::Ready(Err(PLANNED)),
            Does::Panics => panic!("{PLANNED}"),
            Does::Stalls => Poll::Pending,
            Does::Steps(steps) => {
                self.world.apply(steps, None);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        let announced = lock(&self.world.0.announced).take();
        let end = announced.unwrap_or_else(|| panic!("{} was dropped in silence", self.id));
        lock(&self.world.0.log).push((self.id, end));
        if matches!(self.does, Does::PanicsWhenDropped) {
            panic!("{PLANNED}");
        }
    }
}

struct Observer(World);

impl Observer {
    fn announce(&self, end: End) {
        let before = lock(&self.0.0.announced).replace(end);
        // Caught by the layer, so it shows as a callback that is missing from the log.
        assert_eq!(before, None, "the one before was not dropped");
    }
}

impl DeferObserver for Observer {
    fn replaced(&self, _: &CallbackInfo<'_>) {
        self.announce(End::Replaced);
    }

    fn finished(&self, _: &CallbackInfo<'_>, finished: &Finished<'_>) {
        self.announce(match finished.outcome {
            Outcome::Ok => End::Ran,
            Outcome::Error(_) => End::Failed,
            Outcome::Panicked(_) => End::Panicked,
            Outcome::TimedOut(_) => End::TimedOut,
            other => panic!("{other}"),
        });
    }

    fn skipped(&self, _: &CallbackInfo<'_>, _: &Completion) {
        self.announce(End::Skipped);
    }

    fn cancelled(&self, _: &CallbackInfo<'_>) {
        self.announce(End::Cancelled);
    }

    fn lost(&self, _: &CallbackInfo<'_>, _: LostReason) {
        self.announce(End::Lost);
    }
}

struct PlannedBody {
    parts: VecDeque<Part>,
    tells_end: bool,
    hint: Option<u64>,
    trailers: Option<u8>,
    world: World,
    collection: Option<DeferredCallbackCollection>,
}

fn grpc_status(code: Option<u8>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(code) = code {
        headers.insert("grpc-status", u16::from(code).into());
    }
    headers
}

impl Body for PlannedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        loop {
            return Poll::Ready(match self.parts.pop_front() {
                Some(Part::Data(length)) => Some(Ok(Frame::data(vec![b'x'; length].into()))),
                Some(Part::Pending) => return Poll::Pending,
                Some(Part::Steps(steps)) => {
                    self.world.apply(&steps, self.collection.as_ref());
                    continue;
                }
                Some(Part::Trailers) => Some(Ok(Frame::trailers(grpc_status(self.trailers)))),
                Some(Part::Error) => Some(Err(PLANNED)),
                None => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.map(SizeHint::with_exact).unwrap_or_default()
    }
}

struct Observed {
    log: Log,
    completions: Vec<Completion>,
    registered: usize,
    expected: Reference,
    verdict: Verdict,
}

impl Case {
    fn response(&self, world: &World) -> Response<PlannedBody> {
        let parts = &self.body.parts;
        let has_steps = parts.iter().any(|part| matches!(part, Part::Steps(_)));
        let body = PlannedBody {
            parts: parts.iter().cloned().collect(),
            tells_end: self.body.tells_end,
            hint: self.hint(),
            trailers: self.grpc.and_then(|grpc| grpc.in_trailers),
            world: world.clone(),
            // Kept only where it is needed: whether anybody has one makes a difference inside.
            collection: DeferredCallbackCollection::current().filter(|_| has_steps),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a status");
        let in_headers = self.grpc.and_then(|grpc| grpc.in_headers);
        response.headers_mut().extend(grpc_status(in_headers));
        if let Some(length) = self.content_length() {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if let Declared::NoNumber = self.body.declared {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, "much".parse().expect("a value"));
        }
        response
    }

    /// Polls the body the way that its consumer would, then drops it.
    fn consume<B>(&self, body: B) -> Vec<Got>
    where
        B: Body<Data = Bytes, Error = &'static str>,
    {
        let mut body = pin!(body);
        let cx = &mut Context::from_waker(Waker::noop());
        let declared = self.declared();
        let mut bytes = 0;
        let mut got = Vec::new();
        loop {
            let enough = match self.consumer {
                Consumer::Collector => false,
                Consumer::Drops(most) => got.len() >= most,
                Consumer::Hyper => {
                    let cuts = !self.http2 && declared.is_some_and(|declared| bytes >= declared);
                    let trailers = matches!(got.last(), Some(Got::Trailers));
                    self.is_bodiless() || body.is_end_stream() || cuts || trailers
                }
            };
            if enough || matches!(got.last(), Some(Got::None | Got::Error)) {
                return got;
            }
            let frame = loop {
                if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                    break frame;
                }
            };
            got.push(match frame {
                None => Got::None,
                Some(Err(_)) => Got::Error,
                Some(Ok(frame)) => match frame.data_ref() {
                    None => Got::Trailers,
                    Some(data) => {
                        let length = data.len() as u64;
                        bytes += length;
                        let ended = body.is_end_stream();
                        Got::Data { length, ended }
                    }
                },
            });
        }
    }

    /// Returns the steps that the body took before its consumer had enough, each with the number of
    /// frames before it.
    fn steps_polled<'a>(&'a self, got: &'a [Got]) -> impl Iterator<Item = (usize, &'a [Step])> {
        let mut frames = 0;
        let parts = self.body.parts.iter().map_while(move |part| {
            if frames == got.len() {
                return None;
            }
            let before = frames;
            if let Part::Data(_) | Part::Trailers | Part::Error = part {
                frames += 1;
            }
            Some((before, part))
        });
        parts.filter_map(|(frames, part)| match part {
            Part::Steps(steps) => Some((frames, steps.as_slice())),
            _ => None,
        })
    }

    async fn run(self) -> Observed {
        match self.grpc {
            None => self.run_with(DeferLayer::new()).await,
            Some(_) => self.run_with(DeferLayer::new_for_grpc()).await,
        }
    }

    async fn run_with(self, layer: DeferLayer) -> Observed {
        let world = World::default();
        let mut layer = layer
            .timeout(Duration::from_secs(10))
            .observer(Observer(world.clone()));
        if let Some(rule) = self.layer_rule {
            layer = layer.when(predicate(rule));
        }
        if self.concurrent {
            layer = layer.concurrent();
        }
        let deferred = layer.handle();
        let mut expected = Reference::default();

        let handler = {
            let (case, world) = (self.clone(), world.clone());
            move |_: Request<()>| {
                let (case, world) = (case.clone(), world.clone());
                async move {
                    if !case.late.is_empty() {
                        let current = DeferredCallbackCollection::current();
                        *lock(&world.0.collection) = current;
                    }
                    world.apply(&case.program, None);
                    match case.handler {
                        Handler::Responds => Ok(case.response(&world)),
                        Handler::Fails => Err(PLANNED),
                        Handler::Panics => panic!("{PLANNED}"),
                        Handler::IsDropped => pending().await,
                    }
                }
            }
        };
        expected.apply(&self.program);
        let in_handler = expected.registered;

        let mut request = Request::new(());
        if self.head {
            *request.method_mut() = Method::HEAD;
        }
        if self.http2 {
            *request.version_mut() = Version::HTTP_2;
        }
        let mut service = layer.layer(service_fn(handler));
        let mut answer = Box::pin(service.call(request));
        let cx = &mut Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
        let verdict = match polled {
            Ok(Poll::Ready(Ok(response))) => {
                let ended_from_the_start = response.body().is_end_stream();
                let got = self.consume(response.into_body());
                let (verdict, decided_after) = self.verdict(ended_from_the_start, &got);
                let mut is_decided = false;
                for (frames, steps) in self.steps_polled(&got) {
                    if !is_decided && decided_after.is_some_and(|after| frames >= after) {
                        is_decided = true;
                        expected.decide();
                    }
                    expected.apply(steps);
                }
                verdict
            }
            Ok(Poll::Ready(Err(_)) | Poll::Pending) | Err(_) => NO_RESPONSE,
        };
        assert_eq!(verdict == NO_RESPONSE, self.handler != Handler::Responds);
        drop(answer);
        drop(service);
        // Of what the body deferred after it was over, for as far as anybody could tell.
        expected.without_handle = world.drop_handles_from(in_handler);
        deferred.wait_idle().await;
        expected.run_all(verdict, self.layer_rule);

        let collection = lock(&world.0.collection).take();
        if let Some(collection) = &collection {
            expected.apply(&self.late);
            world.apply(&self.late, Some(collection));
            // What is deferred from outside of the request waits for its handle to be dropped.
            let ended = lock(&world.0.log).len();
            tokio::task::yield_now().await;
            assert_eq!(lock(&world.0.log).len(), ended, "nothing runs that is held");
            expected.without_handle = world.drop_handles_from(in_handler);
            deferred.wait_idle().await;
            assert!(collection.is_empty());
            expected.run_all(verdict, self.layer_rule);
        }
        drop(collection);
        assert_eq!((deferred.pending(), deferred.running()), (0, 0));

        let handles = std::mem::take(&mut *lock(&world.0.handles));
        let registered = handles.len();
        drop(handles);
        drop(layer);
        // A runner whose callbacks were all withdrawn before it ran is still to find that out.
        for _ in 0..100 {
            if Arc::strong_count(&world.0) > 1 {
                tokio::task::yield_now().await;
            }
        }
        let shared = Arc::into_inner(world.0).expect("nothing of the case is left");
        Observed {
            log: shared.log.into_inner().expect("a log"),
            completions: shared.completions.into_inner().expect("completions"),
            registered,
            expected,
            verdict,
        }
    }
}

fn cases() -> u32 {
    let cases = std::env::var("PROPTEST_CASES");
    cases.map_or(500, |cases| cases.parse().expect("a number of cases"))
}

#[test]
fn any_program_matches_the_model() {
    silence_planned_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let mut runner = TestRunner::new(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "properties.regressions",
        ))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&case(), |case| {
        let concurrent = case.concurrent;
        // Of the paused clock, which runs on when nothing else does: a case that hangs is found
        // at once.
        let observed = runtime.block_on(async {
            let an_hour = Duration::from_secs(3600);
            tokio::time::timeout(an_hour, case.run()).await
        });
        let Ok(observed) = observed else {
            return Err(TestCaseError::fail("it hung"));
        };
        let Observed {
            log,
            completions,
            registered,
            expected,
            verdict,
        } = observed;

        let mut ended: Vec<usize> = log.iter().map(|(id, _)| *id).collect();
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..registered).collect::<Vec<_>>());
        // Side by side the order is open, and with it what one callback does to the next.
        if !concurrent {
            prop_assert_eq!(log, expected.log);
            prop_assert_eq!(completions.len(), expected.started);
        }
        for completion in completions {
            let seen = Verdict {
                status: completion.status().map(|status| status.as_u16()),
                success: completion.is_success(),
                delivery: completion.delivery(),
                bytes: completion.body_bytes(),
            };
            prop_assert_eq!(seen, verdict);
            prop_assert_eq!(completion.level(), Level::HandedOff);
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\n{runner}");
    }
}
