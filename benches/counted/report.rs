//! The figures as a table, as a file, and against what they should be.

use std::{collections::HashMap, fmt::Write as _};

use crate::{Cost, Counted};

/// How much a figure may grow.
const GROWTH: f64 = 1.05;

/// So many instructions come and go: with the clock (the `date` header changes once a second), and
/// with what the compiler inlines, which any change of this binary may change. It matters to
/// differences, which are small.
const NOISE: f64 = 150.0;

/// One promise: a figure, and what it should be at most.
struct Target {
    name: &'static str,
    figure: f64,
    at_most: f64,
    is_reached: bool,
}

fn targets(counted: &Counted) -> Vec<Target> {
    let target = |name, figure: f64, at_most| Target {
        name,
        figure,
        at_most,
        is_reached: figure <= at_most,
    };
    let nothing = counted.cost("DeferLayer, nothing deferred");
    let one = counted.cost("DeferLayer, 1 callback");
    let per_callback = |cost: fn(Cost) -> f64, name, callbacks: f64| {
        (cost(counted.cost(name)) - cost(nothing)) / callbacks
    };
    let instructions = |cost: Cost| cost.instructions;
    let above = |cost: fn(Cost) -> f64, of: Cost, name| cost(of) - cost(counted.cost(name));
    let ratio = |of: &str, over: &str, above: &str| {
        let above = counted.cost(above).instructions;
        (counted.cost(of).instructions - above) / (counted.cost(over).instructions - above)
    };
    vec![
        target(
            "nothing deferred, above a no-op layer: instructions",
            above(instructions, nothing, "no-op layer"),
            1_510.0,
        ),
        target(
            "nothing deferred, over the floor",
            ratio(
                "DeferLayer, nothing deferred",
                "floor, nothing deferred",
                "no-op layer",
            ),
            1.25,
        ),
        target(
            "nothing deferred, above a no-op layer: allocations",
            above(|cost| cost.allocations, nothing, "no-op layer"),
            3.0,
        ),
        target(
            "one callback, above spawn under a no-op layer: instructions",
            above(instructions, one, "spawn under no-op layer"),
            2_900.0,
        ),
        target(
            "one callback, over the floor",
            ratio(
                "DeferLayer, 1 callback",
                "floor, 1 callback",
                "spawn under no-op layer",
            ),
            1.5,
        ),
        target(
            "one callback, above spawn under a no-op layer: allocations",
            above(|cost| cost.allocations, one, "spawn under no-op layer"),
            4.0,
        ),
        target(
            "one callback, above spawn under a no-op layer: locked",
            above(|cost| cost.locked, one, "spawn under no-op layer"),
            20.0,
        ),
        target(
            "one callback, the same: locked, without the allocator's",
            above(
                Cost::locked_without_allocator,
                one,
                "spawn under no-op layer",
            ),
            20.0,
        ),
        target(
            "one of 1,000 callbacks: instructions",
            per_callback(instructions, "DeferLayer, 1000 callbacks", 1_000.0),
            1_000.0,
        ),
        target(
            "one of 1,000 callbacks: locked",
            per_callback(|cost| cost.locked, "DeferLayer, 1000 callbacks", 1_000.0),
            6.0,
        ),
        target(
            "axum_defer::serve above axum::serve, nothing deferred",
            above(
                instructions,
                counted.cost("axum_defer::serve, nothing deferred"),
                "axum::serve, nothing deferred",
            ),
            700.0,
        ),
        target(
            "axum_defer::serve above axum::serve, 1 callback",
            above(
                instructions,
                counted.cost("axum_defer::serve, 1 callback"),
                "axum::serve, 1 callback",
            ),
            1_500.0,
        ),
        #[cfg(feature = "live")]
        target(
            "Live, above an empty observer: allocations",
            above(
                |cost| cost.allocations,
                counted.cost("Live with room, 1 callback"),
                "an empty observer, 1 callback",
            ),
            0.0,
        ),
        #[cfg(feature = "live")]
        target(
            "Live with room, above an empty observer: instructions",
            above(
                Cost::without_allocator,
                counted.cost("Live with room, 1 callback"),
                "an empty observer, 1 callback",
            ),
            600.0,
        ),
        #[cfg(feature = "live")]
        target(
            "Live without room, above an empty observer: instructions",
            above(
                Cost::without_allocator,
                counted.cost("Live without room, 1 callback"),
                "an empty observer, 1 callback",
            ),
            600.0,
        ),
        target(
            "axum_defer::serve without a time-out above axum::serve, nothing deferred",
            above(
                instructions,
                counted.cost("axum_defer::serve, no time-out, nothing deferred"),
                "axum::serve, nothing deferred",
            ),
            700.0,
        ),
        target(
            "axum_defer::serve without a time-out above axum::serve, 1 callback",
            above(
                instructions,
                counted.cost("axum_defer::serve, no time-out, 1 callback"),
                "axum::serve, 1 callback",
            ),
            1_500.0,
        ),
        target(
            "cost per callback, at 10,000 over at 10",
            per_callback(instructions, "DeferLayer, 10000 callbacks", 10_000.0)
                / per_callback(instructions, "DeferLayer, 10 callbacks", 10.0),
            1.2,
        ),
        target(
            "bytes per pending callback",
            counted.bytes_per_pending_callback,
            200.0,
        ),
    ]
}

/// Figures for reading, beside the targets.
fn differences(counted: &Counted) -> Vec<(&'static str, Cost)> {
    let difference = |label, of: &str, above: &str| {
        let (of, above) = (counted.cost(of), counted.cost(above));
        (
            label,
            Cost {
                instructions: of.instructions - above.instructions,
                allocations: of.allocations - above.allocations,
                locked: of.locked - above.locked,
                allocating: of.allocating - above.allocating,
                allocating_locked: of.allocating_locked - above.allocating_locked,
            },
        )
    };
    vec![
        difference("a no-op layer, above bare axum", "no-op layer", "bare axum"),
        difference(
            "an extension, above a no-op layer",
            "no-op layer with an extension",
            "no-op layer",
        ),
        difference(
            "TraceLayer, above a no-op layer",
            "TraceLayer",
            "no-op layer",
        ),
        difference("spawn, above bare axum", "spawn", "bare axum"),
        difference(
            "nothing deferred, above a no-op layer",
            "DeferLayer, nothing deferred",
            "no-op layer",
        ),
        difference(
            "the floor, nothing deferred, above a no-op layer",
            "floor, nothing deferred",
            "no-op layer",
        ),
        difference(
            "the floor, one callback, above spawn under a no-op layer",
            "floor, 1 callback",
            "spawn under no-op layer",
        ),
        difference(
            "TaskTracker::spawn, Instrument, above spawn",
            "TaskTracker::spawn, Instrument, under no-op layer",
            "spawn under no-op layer",
        ),
        difference(
            "a hand-made layer, nothing deferred, above a no-op layer",
            "hand-made layer, nothing deferred",
            "no-op layer",
        ),
        difference(
            "a hand-made layer, one callback, above spawn under a no-op layer",
            "hand-made layer, 1 callback",
            "spawn under no-op layer",
        ),
        difference(
            "around the router, nothing deferred, above bare axum",
            "around the router, nothing deferred",
            "bare axum",
        ),
        difference(
            "around the router, one callback, above spawn",
            "around the router, 1 callback",
            "spawn",
        ),
        difference(
            "one callback, above nothing deferred",
            "DeferLayer, 1 callback",
            "DeferLayer, nothing deferred",
        ),
        difference(
            "one callback, above spawn",
            "DeferLayer, 1 callback",
            "spawn",
        ),
        difference(
            "one callback, above spawn under a no-op layer",
            "DeferLayer, 1 callback",
            "spawn under no-op layer",
        ),
        difference(
            "an empty observer, above none, one callback",
            "an empty observer, 1 callback",
            "DeferLayer, 1 callback",
        ),
        difference(
            "axum_defer::serve above axum::serve, bare",
            "axum_defer::serve, bare",
            "axum::serve, bare",
        ),
        difference(
            "axum_defer::serve above axum::serve, nothing deferred",
            "axum_defer::serve, nothing deferred",
            "axum::serve, nothing deferred",
        ),
        difference(
            "axum_defer::serve above axum::serve, 1 callback",
            "axum_defer::serve, 1 callback",
            "axum::serve, 1 callback",
        ),
        difference(
            "axum_defer::serve without a time-out above axum::serve, nothing deferred",
            "axum_defer::serve, no time-out, nothing deferred",
            "axum::serve, nothing deferred",
        ),
        difference(
            "axum_defer::serve without a time-out above axum::serve, 1 callback",
            "axum_defer::serve, no time-out, 1 callback",
            "axum::serve, 1 callback",
        ),
        difference(
            "axum::serve, Router::layer, nothing deferred, above bare",
            "axum::serve, nothing deferred",
            "axum::serve, bare",
        ),
        difference(
            "axum::serve, around the router, nothing deferred, above bare",
            "axum::serve, around the router, nothing deferred",
            "axum::serve, bare",
        ),
        difference(
            "axum::serve, Router::layer, 1 callback, above spawn",
            "axum::serve, 1 callback",
            "axum::serve, spawn",
        ),
        difference(
            "axum::serve, around the router, 1 callback, above spawn",
            "axum::serve, around the router, 1 callback",
            "axum::serve, spawn",
        ),
        difference(
            "axum_defer::serve, Router::layer, nothing deferred, above bare",
            "axum_defer::serve, nothing deferred",
            "axum_defer::serve, bare",
        ),
        difference(
            "axum_defer::serve, around the router, nothing deferred, above bare",
            "axum_defer::serve, around the router, nothing deferred",
            "axum_defer::serve, bare",
        ),
        difference(
            "axum_defer::serve, around the router, 1 callback, below Router::layer",
            "axum_defer::serve, 1 callback",
            "axum_defer::serve, around the router, 1 callback",
        ),
    ]
}

pub(crate) fn table(counted: &Counted) -> String {
    let mut table = format!(
        "{}\n\n{:<59} {:>12} {:>13} {:>12} {:>8}\n",
        counted.compiler, "per request", "instructions", "the allocator", "allocations", "locked"
    );
    let line = |table: &mut String, name: &str, cost: &Cost| {
        let Cost {
            instructions,
            allocations,
            locked,
            allocating,
            ..
        } = cost;
        let _ = writeln!(
            table,
            "{name:<59} {instructions:>12.0} {allocating:>13.0} {allocations:>12.1} {locked:>8.1}"
        );
    };
    for (name, cost) in &counted.costs {
        line(&mut table, name, cost);
    }
    let _ = writeln!(table);
    for (name, cost) in differences(counted) {
        line(&mut table, name, &cost);
    }
    let _ = writeln!(table, "\n{:<59} {:>12} {:>13}", "", "measured", "to reach");
    for target in targets(counted) {
        let _ = writeln!(
            table,
            "{:<59} {:>12} {:>13} {}",
            target.name,
            shown(target.figure),
            shown(target.at_most),
            if target.is_reached {
                "reached"
            } else {
                "MISSED"
            }
        );
    }
    table
}

fn shown(figure: f64) -> String {
    if figure < 10.0 {
        format!("{figure:.2}")
    } else {
        format!("{figure:.0}")
    }
}

/// Every guarded figure by name: what is kept in the file. Of the allocator, only how often it was
/// called: how many instructions that takes depends on which free blocks it finds, and so on the
/// machine.
fn figures(counted: &Counted) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    let costs = counted.costs.iter().copied();
    for (name, cost) in costs.chain(differences(counted)) {
        figures.push((format!("{name}: instructions"), cost.without_allocator()));
        figures.push((format!("{name}: allocations"), cost.allocations));
        figures.push((format!("{name}: locked"), cost.locked_without_allocator()));
    }
    figures
}

pub(crate) fn baseline(counted: &Counted) -> String {
    let mut baseline = format!("compiler = {}\n", counted.compiler);
    for (name, figure) in figures(counted) {
        let _ = writeln!(baseline, "{name} = {figure:.2}");
    }
    for target in targets(counted) {
        let _ = writeln!(baseline, "target: {} = {:.2}", target.name, target.figure);
    }
    baseline
}

/// What has become worse than the file says, in words.
pub(crate) fn check(counted: &Counted, baseline: &str) -> Vec<String> {
    let known: HashMap<&str, &str> = baseline
        .lines()
        .filter_map(|line| line.rsplit_once(" = "))
        .collect();
    let before = |name: &str| known.get(name)?.parse::<f64>().ok();
    let same_compiler = known.get("compiler") == Some(&counted.compiler.as_str());
    let mut complaints = Vec::new();
    // What is saved may grow; and the figures that it lies between are compared by themselves.
    let is_saved = |name: &str| name.contains(", below ");
    for (name, figure) in figures(counted) {
        if is_saved(&name) {
            continue;
        }
        let Some(before) = before(&name) else {
            complaints.push(format!("`{name}` is not in the file: run with --save"));
            continue;
        };
        let limit = if !name.ends_with("instructions") {
            before * GROWTH
        } else if same_compiler {
            before * GROWTH + NOISE
        } else {
            // Another compiler makes other code of axum too: measure by that.
            let yardstick = if name.contains("::serve") {
                "axum::serve, bare"
            } else {
                "bare axum"
            };
            let then = known.get(format!("{yardstick}: instructions").as_str());
            let then = then.and_then(|figure| figure.parse::<f64>().ok());
            let scale = counted.cost(yardstick).without_allocator() / then.unwrap_or(f64::NAN);
            before * scale * GROWTH + NOISE
        };
        // A limit that is no number is passed by nothing.
        if limit.is_nan() || figure > limit {
            complaints.push(format!("{name}: {before:.2} before, {figure:.2} now"));
        }
    }
    for target in targets(counted) {
        let was_reached = before(&format!("target: {}", target.name))
            .is_none_or(|figure| figure <= target.at_most);
        if was_reached && !target.is_reached {
            complaints.push(format!(
                "{}: {:.2}, to reach at most {}",
                target.name, target.figure, target.at_most
            ));
        }
    }
    complaints
}
