//! Generated test cases, and their reduction.

use std::{
    collections::VecDeque,
    env,
    iter::repeat_with,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The choices of a generated case, in order.
pub(super) struct Choices(pub(super) VecDeque<u8>);

impl Choices {
    /// Splits off the choices for the end of the case. Also returns the number of steps before it.
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

/// Runs `PROPTEST_CASES` random cases. Reduces a case that fails, and prints its choices.
///
/// Does not use proptest, because running an example would then build it.
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
            unreachable!("the case no longer fails");
        }
    }
}

/// Returns the shortest prefix that fails, with as many zeros as possible.
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
