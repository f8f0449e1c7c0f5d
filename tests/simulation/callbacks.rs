//! The callbacks that handlers and bodies register, of every kind.

use std::future::pending;

use axum_defer::{
    Completion, DeferredCallback, DeferredCallbackCollection, before_response, defer,
};
use tokio::{task::yield_now, time::sleep};

use super::{dice::Dice, observer::decision, panics::PLANNED, record::World};

/// Options that make callbacks of several requests compete for a name.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    Unique,
    Coalesce,
}

/// All that the library has.
const MODES: &[Mode] = &[Mode::Unique, Mode::Coalesce];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Coalesce => "coalesce",
        }
    }

    fn apply(self, callback: DeferredCallback) -> DeferredCallback {
        match self {
            Self::Unique => callback.unique(),
            Self::Coalesce => callback.coalesce(),
        }
    }
}

/// Held by the code of one callback.
struct Code {
    world: World,
    request: u64,
}

impl Code {
    /// Counts a callback that is registered right after this.
    fn new(world: &World, request: u64) -> Self {
        world.registers(request);
        Self {
            world: world.clone(),
            request,
        }
    }

    fn check(&self, completion: &Completion) {
        let decision = decision(completion);
        let decided = self
            .world
            .with_request(self.request, |request| request.decided);
        if let Some(Some((_, decided))) = decided {
            if decided != decision {
                let request = self.request;
                self.world.violation(format!(
                    "request {request}: decided as {decided:?}, a callback got {decision:?}"
                ));
            }
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.world.callback_is_gone();
    }
}

struct PanicsWhenDropped(Code);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{PLANNED}");
        }
    }
}

/// One run of a callback of which only one may run at a time.
struct Exclusive {
    world: World,
    name: &'static str,
}

impl Exclusive {
    fn new(world: &World, name: &'static str) -> Self {
        let mut facts = world.facts();
        let running = facts.exclusive.entry(name).or_default();
        *running += 1;
        let is_alone = *running == 1;
        facts.require(is_alone, || format!("{name}: two run at a time"));
        drop(facts);
        Self {
            world: world.clone(),
            name,
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if let Some(running) = self.world.facts().exclusive.get_mut(self.name) {
            *running -= 1;
        }
    }
}

/// Registers callbacks for one request.
#[derive(Clone)]
pub struct Registrar {
    pub world: World,
    pub request: u64,
    pub panics: bool,
}

impl Registrar {
    /// Registers one callback of a random kind.
    pub fn register(&self, dice: &mut Dice, depth: u32) {
        if dice.one_in(6) {
            return self.register_exclusive(dice);
        }
        let name = dice
            .one_in(2)
            .then(|| format!("{}:{}", self.request, dice.below(3)));
        let named = |handle: DeferredCallback| match &name {
            Some(name) => handle.name(name.clone()),
            None => handle,
        };
        let handle = named(self.callback(dice, depth));
        match dice.below(14) {
            0 => drop(handle.cancel()),
            1 => {
                if let (Some(name), Some(scope)) = (&name, DeferredCallbackCollection::current()) {
                    scope.forget(name);
                }
            }
            2 => drop(named(self.callback(dice, depth))),
            3 => drop(handle.when(|_| false)),
            4 if self.panics => drop(handle.when(|_| panic!("{PLANNED}"))),
            5..=8 => drop(handle.always()),
            _ => {}
        }
    }

    fn code(&self) -> Code {
        Code::new(&self.world, self.request)
    }

    fn callback(&self, dice: &mut Dice, depth: u32) -> DeferredCallback {
        let code = self.code();
        let pause = dice.short_pause();
        match dice.below(20) {
            0..=1 => defer(async move {
                drop(code);
                Err::<(), _>(PLANNED)
            }),
            2 if self.panics => defer(async move {
                let _code = code;
                panic!("{PLANNED}")
            }),
            3 if self.panics => {
                let code = PanicsWhenDropped(code);
                defer(async move { drop(code) })
            }
            4 => defer(async move {
                let _code = code;
                pending::<()>().await
            })
            .timeout(pause),
            5..=7 if depth > 0 => {
                let (registrar, mut dice) = (self.clone(), dice.fork());
                defer(async move {
                    registrar.register(&mut dice, depth - 1);
                    yield_now().await;
                    registrar.register(&mut dice, depth - 1);
                    drop(code);
                })
            }
            8..=10 => defer(async move {
                sleep(pause).await;
                drop(code);
            }),
            11 => {
                let own = DeferredCallbackCollection::current();
                defer(move |completion: Completion| async move {
                    code.check(&completion);
                    drop(own);
                })
            }
            _ => defer(move |completion: Completion| async move {
                code.check(&completion);
            }),
        }
    }

    /// Registers a callback through a kept handle, as a task of the handler does.
    pub fn register_late(&self, scope: &DeferredCallbackCollection) {
        let code = self.code();
        scope.defer(async move { drop(code) }).always();
    }

    fn register_exclusive(&self, dice: &mut Dice) {
        let mode = dice.pick(MODES);
        let (code, name, pause) = (self.code(), mode.name(), dice.short_pause());
        let handle = defer(async move {
            let _run = Exclusive::new(&code.world, name);
            sleep(pause).await;
        });
        let handle = mode.apply(handle.name(name));
        match dice.below(4) {
            0 => drop(handle.always()),
            1 => drop(handle.timeout(pause / 2)),
            _ => {}
        }
    }

    /// Registers one callback that the response waits for.
    pub fn register_before(&self, dice: &mut Dice) {
        self.world
            .with_request(self.request, |request| request.detached = true);
        let (code, pause) = (self.code(), dice.short_pause());
        let handle = match dice.below(12) {
            0 => before_response(async move {
                drop(code);
                Err::<(), _>(PLANNED)
            }),
            1 if self.panics => before_response(async move {
                let _code = code;
                panic!("{PLANNED}")
            }),
            2 => before_response(async move {
                let _code = code;
                pending::<()>().await
            })
            .timeout(pause),
            3..=5 => {
                let (registrar, mut dice) = (self.clone(), dice.fork());
                before_response(async move {
                    yield_now().await;
                    registrar.register(&mut dice, 0);
                    drop(code);
                })
            }
            6..=8 => before_response(async move {
                sleep(pause).await;
                drop(code);
            }),
            _ => before_response(async move { drop(code) }),
        };
        match dice.below(10) {
            0 => drop(handle.cancel()),
            1..=4 => drop(handle.always()),
            _ => {}
        }
    }
}
