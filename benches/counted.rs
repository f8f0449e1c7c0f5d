//! Instructions, allocations, locked instructions and bytes per request, counted by valgrind: the same
//! on every run.
//!
//! Each scenario runs in a process of its own, this very binary, twice: once for its warm-up and
//! once for that and some more requests. The difference over those requests is what one of them
//! costs, without the start of the process. See `benches/README.md`.

use std::{env, fmt, fs, io, path::Path, process::Command, thread};

use crate::scenarios::{SCENARIOS, Scenario};

#[path = "counted/floor.rs"]
mod floor;
#[path = "counted/neighbours.rs"]
mod neighbours;
mod no_op;
#[path = "counted/report.rs"]
mod report;
#[path = "counted/scenarios.rs"]
mod scenarios;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        // Cargo's own, for benches of the standard harness.
        .filter(|argument| *argument != "--bench")
        .collect();
    match arguments[..] {
        ["--run", name, count] => {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
            let scenario = scenario.expect("a scenario of this name");
            (scenario.run)(count.parse().expect("a count"));
        }
        [] => println!("{}", report::table(&count_all())),
        ["--save"] => {
            let counted = count_all();
            println!("{}", report::table(&counted));
            fs::write(BASELINE, report::baseline(&counted)).expect("the baseline can be written");
            println!("written to {BASELINE}");
        }
        ["--check"] => {
            let baseline = fs::read_to_string(BASELINE).expect("there is a baseline");
            let counted = count_all();
            println!("{}", report::table(&counted));
            let complaints = report::check(&counted, &baseline);
            for complaint in &complaints {
                println!("FAILED: {complaint}");
            }
            if !complaints.is_empty() {
                std::process::exit(1);
            }
            println!(
                "no figure has grown by more than 5 %, and no target is missed that was reached"
            );
        }
        _ => {
            eprintln!(
                "usage: cargo bench --package axum-defer-benches --bench counted --features live [-- --check | --save]"
            );
            std::process::exit(2);
        }
    }
}

/// What one request of a scenario costs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    allocations: f64,
    /// Instructions that keep other threads off: atomics that are written, and locks.
    locked: f64,
    /// Of the instructions, those of the allocator; and of the locked ones.
    allocating: f64,
    allocating_locked: f64,
}

impl Cost {
    /// The instructions that are the same on every machine.
    fn without_allocator(self) -> f64 {
        self.instructions - self.allocating
    }

    /// The same of the locked ones.
    fn locked_without_allocator(self) -> f64 {
        self.locked - self.allocating_locked
    }
}

/// All figures of one run, on one compiler.
struct Counted {
    compiler: String,
    costs: Vec<(&'static str, Cost)>,
    bytes_per_pending_callback: f64,
}

impl Counted {
    fn cost(&self, name: &str) -> Cost {
        let found = self.costs.iter().find(|(known, _)| *known == name);
        found.expect("every scenario was counted").1
    }
}

/// Two at a time: what else the machine does changes nothing in what is counted.
fn count_all() -> Counted {
    let (even, odd): (Vec<_>, Vec<_>) = SCENARIOS
        .iter()
        .filter(|scenario| scenario.requests > 0)
        .enumerate()
        .partition(|(index, _)| index % 2 == 0);
    let count = |half: Vec<(usize, &'static Scenario)>| {
        half.into_iter()
            .map(|(index, scenario)| (index, (scenario.name, cost(scenario))))
            .collect::<Vec<_>>()
    };
    let other_half = thread::spawn(move || count(odd));
    let mut costs = count(even);
    costs.extend(other_half.join().expect("the other half is counted too"));
    costs.sort_by_key(|(index, _)| *index);
    Counted {
        compiler: compiler(),
        costs: costs.into_iter().map(|(_, cost)| cost).collect(),
        bytes_per_pending_callback: bytes_per_pending_callback(),
    }
}

fn cost(scenario: &Scenario) -> Cost {
    let Scenario {
        name,
        warm_up,
        requests,
        ..
    } = *scenario;
    let counted =
        |tool: Tool| [warm_up, warm_up + requests].map(|requests| valgrind(tool, name, requests));
    let per_request = |[start, end]: &[Summary; 2], label: &str, place: usize| {
        (end.figure(label, place) - start.figure(label, place)) as f64 / f64::from(requests)
    };
    let (executed, allocated) = (counted(Tool::Callgrind), counted(Tool::Dhat));
    let [start, end] = executed.each_ref().map(Summary::allocating);
    let allocating = |place: usize| (end[place] - start[place]) as f64 / f64::from(requests);
    Cost {
        instructions: per_request(&executed, "Collected", 0),
        allocations: per_request(&allocated, "Total", 1),
        locked: per_request(&executed, "Collected", 1),
        allocating: allocating(0),
        allocating_locked: allocating(1),
    }
}

fn bytes_per_pending_callback() -> f64 {
    const CALLBACKS: u32 = 10_000;
    let peak = |callbacks| valgrind(Tool::Dhat, scenarios::PENDING, callbacks).figure("t-gmax", 0);
    (peak(CALLBACKS) - peak(0)) as f64 / f64::from(CALLBACKS)
}

fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{} {}",
        version.unwrap_or_else(|_| "unknown rustc".into()),
        env::consts::ARCH
    )
}

#[derive(Clone, Copy)]
enum Tool {
    /// Counts instructions, and of them those that are locked.
    Callgrind,
    /// Counts allocations. It stands in for the allocator, so a counter in the binary, which
    /// would cost instructions, is not needed.
    Dhat,
}

/// What valgrind said of a run.
struct Summary {
    said: String,
    /// By function, where it counted instructions.
    profile: String,
}

/// The functions of glibc's allocator, by the beginnings of their names.
const ALLOCATOR: [&str; 12] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "aligned_alloc",
    "posix_memalign",
    "_int_",
    "_mid_memalign",
    "unlink_chunk",
    "alloc_perturb",
    "tcache",
    "sysmalloc",
];

impl Summary {
    /// [The format](https://valgrind.org/docs/manual/cl-format.html): a line for the function, then
    /// one for each of its lines; what it calls has a line with the costs of that after it. Costs are
    /// instructions and locked ones, the second only where it is not zero.
    fn allocating(&self) -> [i64; 2] {
        let (mut sums, mut is_allocator, mut is_called) = ([0, 0], false, false);
        for line in self.profile.lines() {
            if let Some(function) = line.strip_prefix("fn=") {
                is_allocator = ALLOCATOR.iter().any(|name| function.starts_with(name));
            } else if line.starts_with("calls=") {
                is_called = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                if is_allocator && !is_called {
                    let costs = line.split_whitespace().skip(1);
                    for (sum, cost) in sums.iter_mut().zip(costs) {
                        *sum += cost.parse::<i64>().expect("a cost");
                    }
                }
                is_called = false;
            }
        }
        sums
    }

    /// A number of the line that begins with this label, by its place. Of what is collected, those
    /// are instructions and locked ones; elsewhere, bytes and blocks.
    fn figure(&self, label: &str, place: usize) -> i64 {
        let line = self
            .said
            .lines()
            .find(|line| line.contains(label))
            .unwrap_or_else(|| panic!("no `{label}` in {self}"));
        let (_, figures) = line.split_once(": ").expect("a label and its figures");
        let mut numbers = figures
            .split_whitespace()
            .filter_map(|word| word.replace(',', "").parse().ok());
        let number = numbers.nth(place);
        number.unwrap_or_else(|| panic!("no number {place} in `{line}`"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.said)
    }
}

fn valgrind(tool: Tool, scenario: &str, count: u32) -> Summary {
    let nowhere = Path::new("/dev/null").display();
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{scenario} {count}"));
    let tool = match tool {
        Tool::Callgrind => vec![
            "--tool=callgrind".to_owned(),
            "--collect-bus=yes".to_owned(),
            "--compress-strings=no".to_owned(),
            "--compress-pos=no".to_owned(),
            format!("--callgrind-out-file={}", profile.display()),
        ],
        Tool::Dhat => vec![
            "--tool=dhat".to_owned(),
            format!("--dhat-out-file={nowhere}"),
        ],
    };
    let output = Command::new("valgrind")
        .args(tool)
        .arg(env::current_exe().expect("this binary has a path"))
        .args(["--run", scenario, &count.to_string()])
        .output();
    let output = output.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => panic!("valgrind is not installed"),
        _ => panic!("valgrind: {error}"),
    });
    let summary = Summary {
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        profile: fs::read_to_string(&profile).unwrap_or_default(),
    };
    let _ = fs::remove_file(&profile);
    assert!(output.status.success(), "{scenario} failed: {summary}");
    summary
}
