//! The choices that a generated case makes.

use std::{
    collections::VecDeque,
    env,
    iter::repeat_with,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The choices that a generated case makes, one after the other.
pub(super) struct Choices(pub(super) VecDeque<u8>);

impl Choices {
    /// Keeps some back for the end.
    pub(super) fn split(mut choices: Vec<u8>) -> (Self, Self, usize) {
        let steps = choices.len() * 4 / 5;
        let final_choices = choices.split_off(steps);
        (Self(choices.into()), Self(final_choices.into()), steps)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.0.pop_front().unwrap_or(0)) % limit
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == chances - 1
    }
}

/// Runs random cases, as many as `PROPTEST_CASES` says, like the properties in `tests/integrations`;
/// and of one that fails the smallest that fails, whose choices it prints.
///
/// Without proptest, because every user who runs an example would build it.
pub(super) fn any(longest: usize, case: fn(Vec<u8>)) {
    let cases = env::var("PROPTEST_CASES").map_or(256, |cases| cases.parse().unwrap());
    let fails = |choices: &[u8]| catch_unwind(AssertUnwindSafe(|| case(choices.to_vec()))).is_err();
    for _ in 0..cases {
        let length = fastrand::usize(..longest);
        let choices: Vec<_> = repeat_with(|| fastrand::u8(..)).take(length).collect();
        if fails(&choices) {
            let smallest = shrink(choices, fails);
            println!("the choices were {smallest:?}");
            case(smallest);
            unreachable!("it failed, and now it does not");
        }
    }
}

/// The shortest beginning that fails, with a zero wherever it fails with a zero.
fn shrink(mut choices: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    if let Some(length) = (0..choices.len()).find(|&length| fails(&choices[..length])) {
        choices.truncate(length);
    }
    for index in 0..choices.len() {
        let choice = std::mem::take(&mut choices[index]);
        if !fails(&choices) {
            choices[index] = choice;
        }
    }
    choices
}

#[test]
fn shrink_finds_smallest_failing_choices() {
    let fails = |choices: &[u8]| choices.len() > 2 && choices[1] > 7;
    assert_eq!(shrink(vec![9, 9, 9, 9, 9], fails), [0, 9, 0]);
}
