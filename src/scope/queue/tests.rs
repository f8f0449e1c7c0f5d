use std::panic::Location;

use super::*;
use crate::{
    callback::{deferrable::Deferrable, entry::Entry},
    observe::phase::Phase,
};

fn entry() -> BoxEntry {
    Box::pin(Entry::new(
        Header::new(Location::caller(), Phase::After),
        async {}.into_callback(),
    ))
}

fn others(queue: &Queue) -> usize {
    queue.rest.as_ref().map_or(0, |rest| rest.others.len())
}

fn names(queue: &Queue) -> Vec<&str> {
    queue
        .headers()
        .map(|header| header.name.as_deref().unwrap_or("-"))
        .collect()
}

#[test]
fn the_later_registration_keeps_the_name_whichever_is_named_last() {
    let mut queue = Queue::default();
    let first = queue.push(entry());
    let second = queue.push(entry());
    queue.push(entry());
    assert!(matches!(
        queue.rename(first, "a".into()),
        Named::Replaced(None)
    ));
    assert!(matches!(
        queue.rename(second, "a".into()),
        Named::Replaced(Some(_))
    ));
    assert_eq!(names(&queue), ["a", "-"]);

    let mut queue = Queue::default();
    let first = queue.push(entry());
    let second = queue.push(entry());
    queue.rename(second, "a".into());
    let Named::Outranked(outranked) = queue.rename(first, "a".into()) else {
        panic!("the later one has the name");
    };
    assert_eq!(outranked.header.name.as_deref(), Some("a"));
    assert!(queue.contains("a"));
    assert_eq!(names(&queue), ["a"]);
    assert!(queue.header_mut(second).is_some());
}

#[test]
fn a_new_name_frees_the_old_one_and_the_same_name_again_changes_nothing() {
    let mut queue = Queue::default();
    let id = queue.push(entry());
    queue.rename(id, "a".into());
    queue.rename(id, "a".into());
    assert_eq!((names(&queue), queue.len()), (vec!["a"], 1));
    queue.rename(id, "b".into());
    assert!(!queue.contains("a") && queue.contains("b"));
    assert!(queue.remove_named("a").is_none());
    assert!(queue.remove_named("b").is_some());
    assert!(!queue.contains("b"));
    assert!(matches!(queue.rename(id, "c".into()), Named::TooLate));
    assert!(!queue.contains("c"));
}

#[test]
fn what_was_taken_out_frees_its_name() {
    let mut queue = Queue::default();
    let id = queue.push(entry());
    queue.rename(id, "a".into());
    assert!(queue.pop().is_some());
    assert!(!queue.contains("a"));
    assert_eq!(queue.len(), 0);
}

#[test]
fn one_that_is_held_lets_those_behind_it_pass() {
    let mut queue = Queue::default();
    let held = queue.push(entry());
    let ready = queue.push(entry());
    queue.hold(held);
    queue.hold(held);
    assert_eq!(queue.pop().unwrap().header.id, ready);
    assert!(queue.pop().is_none() && !queue.has_ready());
    assert_eq!(queue.len(), 1);
    queue.release(held);
    queue.release(held);
    assert_eq!(queue.pop().unwrap().header.id, held);

    let held = queue.push(entry());
    queue.hold(held);
    assert!(queue.remove(held).is_some());
    let ready = queue.push(entry());
    assert_eq!(queue.pop().unwrap().header.id, ready);
}

#[test]
fn the_first_that_is_ready_is_popped_whatever_is_held_and_taken_out() {
    // The same by looking through all of them each time, from the front.
    let mut model: Vec<(u64, bool)> = Vec::new();
    let mut queue = Queue::default();
    let mut random = 7_u64;
    for step in 0..20_000 {
        // For a while there are few of them, and often none.
        let pushes = if step / 1_000 % 2 == 0 { 3 } else { 1 };
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let dice = (random >> 33) as usize;
        let chosen = dice / 8 % model.len().max(1);
        match dice % 8 {
            push if push < pushes => model.push((queue.push(entry()), false)),
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
                assert_eq!(queue.remove(id).unwrap().header.id, id);
            }
            _ => {
                let ready = model.iter().position(|(_, held)| !held);
                let expected = ready.map(|index| model.remove(index).0);
                assert_eq!(queue.pop().map(|entry| entry.header.id), expected);
            }
        }
        assert_eq!(queue.len(), model.len());
        assert_eq!(queue.has_ready(), model.iter().any(|(_, held)| !held));
    }
}

#[test]
fn replacing_one_name_for_ever_takes_no_more_room() {
    let mut queue = Queue::default();
    let kept = queue.push(entry());
    for _ in 0..10_000 {
        let id = queue.push(entry());
        queue.rename(id, "heartbeat".into());
    }
    assert_eq!(queue.len(), 2);
    assert!(others(&queue) <= 2 * 2 + COMPACT_ABOVE + 1);
    assert_eq!(names(&queue), ["-", "heartbeat"]);
    assert!(queue.header_mut(kept).is_some());
}

#[test]
fn what_is_taken_out_of_the_middle_leaves_a_place_until_there_are_too_many() {
    let mut queue = Queue::default();
    let ids: Vec<_> = (0..101).map(|_| queue.push(entry())).collect();
    assert!(queue.pop().is_some() && queue.pop().is_some());
    assert_eq!(
        others(&queue),
        99,
        "what leaves at the front leaves no place"
    );
    queue.push(entry());
    for id in &ids[2..] {
        assert!(queue.remove(*id).is_some());
        let most = 2 * queue.len() + COMPACT_ABOVE;
        if most >= 100 {
            assert_eq!(others(&queue), 100, "nobody is moved for one place");
        } else {
            assert!(others(&queue) <= most);
        }
    }
    assert!(queue.pop().is_some() && queue.pop().is_none());
}
