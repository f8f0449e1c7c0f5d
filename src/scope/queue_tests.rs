use std::panic::Location;

use super::*;
use crate::{
    callback::{deferrable::Deferrable, entry::Entry},
    observe::callback_info::Phase,
};

fn entry() -> BoxEntry {
    Box::pin(Entry::new(
        Header::new(Location::caller(), Phase::After),
        async {}.into_callback(),
    ))
}

fn slots(queue: &Queue) -> usize {
    queue.rest.as_ref().map_or(0, |rest| rest.slots.len())
}

fn named(name: impl Into<std::borrow::Cow<'static, str>>) -> Name {
    name.into().into()
}

fn names(queue: &Queue) -> Vec<&str> {
    queue
        .headers()
        .map(|header| header.name.as_deref().unwrap_or("-"))
        .collect()
}

#[test]
fn rename_keeps_later_registration() {
    let mut queue = Queue::default();
    let first = queue.push(entry(), false);
    let second = queue.push(entry(), false);
    queue.push(entry(), false);
    assert!(matches!(
        queue.rename(first, named("a")),
        Renamed::Named(None)
    ));
    assert!(matches!(
        queue.rename(second, named("a")),
        Renamed::Named(Some(_))
    ));
    assert_eq!(names(&queue), ["a", "-"]);

    let mut queue = Queue::default();
    let first = queue.push(entry(), false);
    let second = queue.push(entry(), false);
    queue.rename(second, named("a"));
    let Renamed::Superseded(outranked) = queue.rename(first, named("a")) else {
        panic!("the later callback does not have the name");
    };
    assert_eq!(outranked.header.name.as_deref(), Some("a"));
    assert!(queue.contains("a"));
    assert_eq!(names(&queue), ["a"]);
    assert!(queue.header_mut(second).is_some());
}

#[test]
fn rename_frees_previous_name() {
    let mut queue = Queue::default();
    let id = queue.push(entry(), false);
    queue.rename(id, named("a"));
    queue.rename(id, named("a"));
    assert_eq!((names(&queue), queue.len()), (vec!["a"], 1));
    queue.rename(id, named("b"));
    assert!(!queue.contains("a") && queue.contains("b"));
    assert!(queue.remove_named("a").is_none());
    assert!(queue.remove_named("b").is_some());
    assert!(!queue.contains("b"));
    assert!(matches!(queue.rename(id, named("c")), Renamed::Missing));
    assert!(!queue.contains("c"));
}

#[test]
fn pop_frees_name() {
    let mut queue = Queue::default();
    let id = queue.push(entry(), false);
    queue.rename(id, named("a"));
    assert!(queue.pop().is_some());
    assert!(!queue.contains("a"));
    assert_eq!(queue.len(), 0);
}

#[test]
fn held_callback_is_passed_by_later_ones() {
    let mut queue = Queue::default();
    let held = queue.push(entry(), false);
    let ready = queue.push(entry(), false);
    queue.hold(held);
    queue.hold(held);
    assert_eq!(queue.pop().unwrap().id, ready);
    assert!(queue.pop().is_none() && !queue.has_ready());
    assert_eq!(queue.len(), 1);
    queue.release(held);
    queue.release(held);
    assert_eq!(queue.pop().unwrap().id, held);

    let held = queue.push(entry(), false);
    queue.hold(held);
    assert!(queue.remove(held).is_some());
    let ready = queue.push(entry(), false);
    assert_eq!(queue.pop().unwrap().id, ready);
}

#[test]
fn pop_matches_model_of_held_and_removed() {
    // The model searches from the front each time.
    let mut model: Vec<(u64, bool)> = Vec::new();
    let mut queue = Queue::default();
    let mut random = 7_u64;
    for step in 0..20_000 {
        // The queue is often empty in every second phase.
        let pushes = if step / 1_000 % 2 == 0 { 3 } else { 1 };
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let dice = (random >> 33) as usize;
        let chosen = dice / 8 % model.len().max(1);
        match dice % 8 {
            push if push < pushes => model.push((queue.push(entry(), false), false)),
            3 => {
                if let Some((id, held)) = model.get_mut(chosen) {
                    queue.hold(*id);
                    *held = true;
                }
            }
            4 => {
                if let Some((id, held)) = model.get_mut(chosen) {
                    queue.release(*id);
                    *held = false;
                }
            }
            5 if !model.is_empty() => {
                let (id, _) = model.remove(chosen);
                assert!(queue.remove(id).is_some());
            }
            _ => {
                let ready = model.iter().position(|(_, held)| !held);
                let expected = ready.map(|index| model.remove(index).0);
                assert_eq!(queue.pop().map(|taken| taken.id), expected);
            }
        }
        assert_eq!(queue.len(), model.len());
        assert_eq!(queue.has_ready(), model.iter().any(|(_, held)| !held));
    }
}

#[test]
fn replaced_name_does_not_grow_queue() {
    let mut queue = Queue::default();
    let kept = queue.push(entry(), false);
    for _ in 0..10_000 {
        let id = queue.push(entry(), false);
        queue.rename(id, named("heartbeat"));
    }
    assert_eq!(queue.len(), 2);
    assert!(slots(&queue) <= 2 * 2 + COMPACT_ABOVE + 1);
    assert_eq!(names(&queue), ["-", "heartbeat"]);
    assert!(queue.header_mut(kept).is_some());
}

#[test]
fn removed_slots_are_compacted() {
    let mut queue = Queue::default();
    let ids: Vec<_> = (0..101).map(|_| queue.push(entry(), false)).collect();
    assert!(queue.pop().is_some() && queue.pop().is_some());
    assert_eq!(slots(&queue), 99, "the front leaves no empty slot");
    queue.push(entry(), false);
    for id in &ids[2..] {
        assert!(queue.remove(*id).is_some());
        let most = 2 * queue.len() + COMPACT_ABOVE;
        if most >= 100 {
            assert_eq!(slots(&queue), 100, "one removal moves no slot");
        } else {
            assert!(slots(&queue) <= most);
        }
    }
    assert!(queue.pop().is_some() && queue.pop().is_none());
}
