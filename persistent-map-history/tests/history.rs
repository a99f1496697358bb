//! The checker finds planted anomalies, small and among many calls, and has nothing against histories of a register that
//! is right. A second checker, which tries every order, agrees with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use persistent_map_history::{Anomaly, Answer, Call, Figures, History, Op, Rule};

type State = Option<u64>;

/// What a register does, written a second time.
fn apply(state: &mut State, op: Op) -> Answer {
    let before = *state;
    match op {
        Op::Get => before.into(),
        Op::Contains => before.is_some().into(),
        Op::Insert(value) => state.replace(value).into(),
        Op::Remove => state.take().into(),
        Op::InsertIfAbsent(value) => {
            state.get_or_insert(value);
            before.into()
        }
        Op::CompareAndSwap { expected, new } => {
            let is_expected = before == expected;
            if is_expected {
                *state = new;
            }
            Answer::Swapped(if is_expected { Ok(()) } else { Err(before) })
        }
        Op::Update(add) => {
            if let Some(value) = state {
                *value = value.wrapping_add(add);
            }
            (*state).into()
        }
        Op::RemoveIf(value) => state.take_if(|held| *held == value).into(),
        Op::Compute(rule) => {
            *state = match (rule, before) {
                (Rule::Set(value), _) => value,
                (Rule::Toggle(value), None) => Some(value),
                (Rule::Toggle(_), Some(_)) => None,
                (Rule::AddOr { or, .. }, None) => Some(or),
                (Rule::AddOr { add, .. }, Some(value)) => Some(value.wrapping_add(add)),
                _ => unreachable!("no other rule is made here"),
            };
            (*state).into()
        }
        _ => unreachable!("no other operation is made here"),
    }
}

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
struct Plan {
    tasks: usize,
    keys: u64,
    /// Values below this; none twice if it is 0.
    values: u64,
    /// Whether values are removed by others than scripts.
    removals: bool,
    /// Of 100 calls.
    cancelled: u32,
    /// Of 100 calls.
    failed: u32,
}

impl Plan {
    /// Nothing but what a script does.
    const STILL: Plan = Plan {
        tasks: 0,
        keys: 1,
        values: 0,
        removals: false,
        cancelled: 0,
        failed: 0,
    };
    const BUSY: Plan = Plan {
        tasks: 15,
        keys: 3,
        values: 0,
        removals: true,
        cancelled: 4,
        failed: 4,
    };
}

/// A call under way.
struct Running {
    key: u64,
    op: Op,
    call: Call,
    /// The true answer, when it has taken effect.
    answer: Option<Answer>,
}

/// Tasks that call a map which is right, in a random interleaving, and a script that may lie about one answer.
struct World {
    rng: Rng,
    plan: Plan,
    history: History,
    map: HashMap<u64, State>,
    tasks: Vec<Option<Running>>,
    /// Cancelled calls that may still take effect.
    adrift: Vec<(u64, Op)>,
    made: u64,
    lies: bool,
    /// The true answer in place of which a lie was told.
    truth: Option<Answer>,
}

const SCRIPT: usize = 99;

impl World {
    fn new(plan: Plan, seed: u64, lies: bool) -> Self {
        World {
            rng: Rng::with_seed(seed),
            plan,
            history: History::new(),
            map: HashMap::new(),
            tasks: std::iter::repeat_with(|| None).take(plan.tasks).collect(),
            adrift: Vec::new(),
            made: 0,
            lies,
            truth: None,
        }
    }

    fn apply(&mut self, key: u64, op: Op) -> Answer {
        apply(self.map.entry(key).or_default(), op)
    }

    /// A value that no other call puts, however often others are added to.
    fn fresh(&mut self) -> u64 {
        self.made += 1;
        self.made << 20
    }

    fn value(&mut self) -> u64 {
        if self.plan.values == 0 {
            self.fresh()
        } else {
            self.rng.u64(..self.plan.values)
        }
    }

    fn op(&mut self, key: u64) -> Op {
        let held = self.map.get(&key).copied().flatten();
        let value = self.value();
        let likely = if self.plan.values == 0 {
            held.unwrap_or(1)
        } else {
            self.rng.u64(..self.plan.values)
        };
        let add = self.rng.u64(1..4);
        let maybe = Some(value).filter(|_| !self.plan.removals || self.rng.u8(..4) > 0);
        match self.rng.u8(..if self.plan.removals { 15 } else { 11 }) {
            0..3 => Op::Get,
            3 => Op::Contains,
            4..6 => Op::Insert(value),
            6 => Op::InsertIfAbsent(value),
            7 => Op::CompareAndSwap {
                expected: Some(likely).filter(|_| held.is_some()),
                new: maybe,
            },
            8..10 => Op::Update(add),
            10 => Op::Compute(Rule::AddOr { add, or: value }),
            11 => Op::Remove,
            12 => Op::RemoveIf(likely),
            13 => Op::Compute(Rule::Toggle(value)),
            _ => Op::Compute(Rule::Set(maybe)),
        }
    }

    fn begin(&mut self, task: usize, key: u64, op: Op) -> Running {
        Running {
            key,
            op,
            call: self.history.call(task, key, op),
            answer: None,
        }
    }

    fn take_effect(&mut self, running: &mut Running) -> Answer {
        let (key, op) = (running.key, running.op);
        *running.answer.get_or_insert_with(|| self.apply(key, op))
    }

    /// A call is cancelled: if it has not taken effect, then it may do so later.
    fn cancel(&mut self, running: Running) {
        if running.answer.is_none() {
            self.adrift.push((running.key, running.op));
        }
        if self.rng.bool() {
            running.call.unanswered();
        }
    }

    /// One task goes on.
    fn step(&mut self) {
        if !self.adrift.is_empty() && self.rng.u8(..8) == 0 {
            let at = self.rng.usize(..self.adrift.len());
            let (key, op) = self.adrift.swap_remove(at);
            if self.rng.bool() {
                self.apply(key, op);
            }
        }
        if self.tasks.is_empty() {
            return;
        }
        let task = self.rng.usize(..self.tasks.len());
        let chance = self.rng.u32(..100);
        self.tasks[task] = match self.tasks[task].take() {
            None => {
                let key = self.rng.u64(..self.plan.keys);
                let op = self.op(key);
                Some(self.begin(task, key, op))
            }
            // Two steps that a call takes, and it may be cancelled at both.
            Some(running) if chance < self.plan.cancelled / 2 => {
                self.cancel(running);
                None
            }
            Some(mut running) => match running.answer {
                None if chance >= 100 - self.plan.failed => {
                    running.call.failed();
                    None
                }
                None => {
                    self.take_effect(&mut running);
                    Some(running)
                }
                Some(answer) => {
                    running.call.returned(answer);
                    None
                }
            },
        };
    }

    fn steps(&mut self, most: usize) {
        for _ in 0..self.rng.usize(..=most) {
            self.step();
        }
    }

    /// The map ends: what is under way takes effect now or never.
    fn reopen(&mut self) {
        for task in 0..self.tasks.len() {
            if let Some(mut running) = self.tasks[task].take() {
                if self.rng.bool() {
                    self.take_effect(&mut running);
                }
                running.call.unanswered();
            }
        }
        for (key, op) in std::mem::take(&mut self.adrift) {
            if self.rng.bool() {
                self.apply(key, op);
            }
        }
        self.history.reopened();
    }

    fn read_all(&mut self) {
        for key in 0..self.plan.keys {
            let answer = self.apply(key, Op::Get);
            self.history.call(SCRIPT, key, Op::Get).returned(answer);
        }
    }

    fn end(&mut self) {
        for task in 0..self.tasks.len() {
            if let Some(mut running) = self.tasks[task].take() {
                let answer = self.take_effect(&mut running);
                running.call.returned(answer);
            }
        }
        self.read_all();
    }
}

/// What scripts are made of: calls on key 0, with others between their moments.
impl World {
    fn start(&mut self, op: Op) -> Running {
        let running = self.begin(SCRIPT, 0, op);
        self.steps(3);
        running
    }

    /// An answer that is true.
    fn ask(&mut self, op: Op) -> Option<u64> {
        let mut running = self.start(op);
        let answer = self.take_effect(&mut running);
        self.steps(2);
        running.call.returned(answer);
        self.steps(2);
        match answer {
            Answer::Value(value) => value,
            _ => panic!("a script asks for values only"),
        }
    }

    /// An answer that is a lie, if this world lies.
    fn claim(&mut self, op: Op, lie: Option<u64>) {
        let mut running = self.start(op);
        self.take_effect(&mut running);
        self.claim_of(running, lie.into());
    }

    fn claim_of(&mut self, mut running: Running, lie: Answer) {
        let truth = self.take_effect(&mut running);
        assert_ne!(truth, lie, "the script tells no lie");
        self.truth = Some(truth);
        running.call.returned(if self.lies { lie } else { truth });
    }

    fn tell_the_truth(&mut self, mut running: Running) {
        let truth = self.take_effect(&mut running);
        running.call.returned(truth);
    }
}

/// Plants one anomaly, or claims nothing if the moment is not right for it.
type Script = fn(&mut World);

fn stale_read(world: &mut World) {
    let (old, new) = (world.fresh(), world.fresh());
    world.ask(Op::Insert(old));
    world.ask(Op::Insert(new));
    world.claim(Op::Get, Some(old));
}

fn dirty_read(world: &mut World) {
    let value = world.fresh();
    world.start(Op::Insert(value)).call.failed();
    world.claim(Op::Get, Some(value));
}

fn lost_update(world: &mut World) {
    let value = world.fresh();
    world.ask(Op::Insert(value));
    let Some(sum) = world.ask(Op::Update(1)) else {
        return;
    };
    world.claim(Op::Update(1), Some(sum));
}

fn acknowledged_write_lost(world: &mut World) {
    let (old, new) = (world.fresh(), world.fresh());
    world.ask(Op::Insert(old));
    let Some(replaced) = world.ask(Op::Insert(new)) else {
        return;
    };
    world.reopen();
    world.claim(Op::Get, Some(replaced));
}

fn failed_call_comes_back(world: &mut World) {
    let value = world.fresh();
    world.start(Op::Insert(value)).call.failed();
    world.reopen();
    world.claim(Op::Get, Some(value));
}

fn cancelled_call_takes_effect_after_reopening(world: &mut World) {
    let value = world.fresh();
    world.start(Op::Insert(value)).call.unanswered();
    world.reopen();
    world.ask(Op::Get);
    world.claim(Op::Get, Some(value));
}

/// Only where others remove nothing.
fn both_insert_if_absent_win(world: &mut World) {
    let (one, two) = (world.fresh(), world.fresh());
    world.ask(Op::Remove);
    let mut one = world.start(Op::InsertIfAbsent(one));
    let mut two = world.start(Op::InsertIfAbsent(two));
    let won = Answer::Value(None);
    let winners = [world.take_effect(&mut one), world.take_effect(&mut two)];
    match winners.map(|answer| answer == won) {
        [true, _] => {
            world.tell_the_truth(one);
            world.claim_of(two, won);
        }
        [_, true] => {
            world.claim_of(one, won);
            world.tell_the_truth(two);
        }
        _ => {
            world.tell_the_truth(one);
            world.tell_the_truth(two);
        }
    }
}

fn both_compare_and_swap_win(world: &mut World) {
    let value = world.fresh();
    world.ask(Op::Insert(value));
    let mut swap = || {
        let new = Some(world.fresh());
        world.start(Op::CompareAndSwap {
            expected: Some(value),
            new,
        })
    };
    let (mut one, two) = (swap(), swap());
    let won = Answer::Swapped(Ok(()));
    let has_won = world.take_effect(&mut one) == won;
    world.tell_the_truth(one);
    if !has_won {
        world.tell_the_truth(two);
        return;
    }
    world.claim_of(two, won);
}

fn value_removed_twice(world: &mut World) {
    let value = world.fresh();
    world.ask(Op::Insert(value));
    let Some(removed) = world.ask(Op::Remove) else {
        return;
    };
    world.claim(Op::Remove, Some(removed));
}

fn reads_go_backwards(world: &mut World) {
    let (old, new) = (world.fresh(), world.fresh());
    world.ask(Op::Insert(old));
    let mut write = world.start(Op::Insert(new));
    let replaced = world.take_effect(&mut write);
    let seen = world.ask(Op::Get);
    if let (Answer::Value(Some(replaced)), true) = (replaced, seen == Some(new)) {
        world.claim(Op::Get, Some(replaced));
    }
    world.tell_the_truth(write);
}

fn cancelled_write_seen_then_unseen(world: &mut World) {
    let (old, new) = (world.fresh(), world.fresh());
    world.ask(Op::Insert(old));
    let Some(before) = world.ask(Op::Get) else {
        return;
    };
    let mut write = world.start(Op::Insert(new));
    world.take_effect(&mut write);
    write.call.unanswered();
    if world.ask(Op::Get) != Some(new) {
        return;
    }
    world.claim(Op::Get, Some(before));
}

/// Plays a script at a random moment of a world.
fn play(script: Script, plan: Plan, seed: u64, lies: bool) -> Result<Figures, Anomaly> {
    let mut world = World::new(plan, seed, lies);
    world.steps(2000);
    let mut tries = 0;
    while world.truth.is_none() {
        assert!(tries < 1000, "the moment is never right (seed {seed})");
        tries += 1;
        script(&mut world);
        world.steps(100);
    }
    world.steps(2000);
    world.end();
    world.history.check()
}

/// With the lie the history is refused, without it is not: alone, and among the calls of others.
fn is_found(script: Script, plan: Plan) {
    let anomaly = play(script, Plan::STILL, 0, true).expect_err("the anomaly alone");
    println!("{anomaly}");
    assert_eq!(anomaly.key(), 0);
    let text = anomaly.to_string();
    assert!(text.starts_with("key 0: "), "{text}");
    assert!(text.contains("task 99: "), "{text}");
    play(script, Plan::STILL, 0, false).expect("the same without the anomaly");

    for seed in 0..20 {
        let anomaly = play(script, plan, seed, true)
            .err()
            .unwrap_or_else(|| panic!("the anomaly was not found (seed {seed})"));
        assert_eq!(anomaly.key(), 0, "seed {seed}: {anomaly}");
        if let Err(anomaly) = play(script, plan, seed, false) {
            panic!("an anomaly that is none (seed {seed}): {anomaly}");
        }
    }
}

#[test]
fn a_stale_read_after_an_acknowledged_write_is_found() {
    is_found(stale_read, Plan::BUSY);
}

#[test]
fn a_dirty_read_of_a_failed_call_is_found() {
    is_found(dirty_read, Plan::BUSY);
}

#[test]
fn a_lost_update_is_found() {
    is_found(lost_update, Plan::BUSY);
}

#[test]
fn an_acknowledged_write_lost_by_reopening_is_found() {
    is_found(acknowledged_write_lost, Plan::BUSY);
}

#[test]
fn a_failed_call_that_comes_back_by_reopening_is_found() {
    is_found(failed_call_comes_back, Plan::BUSY);
}

#[test]
fn a_cancelled_call_that_takes_effect_after_reopening_is_found() {
    is_found(cancelled_call_takes_effect_after_reopening, Plan::BUSY);
}

#[test]
fn two_winners_of_insert_if_absent_are_found() {
    let plan = Plan {
        removals: false,
        ..Plan::BUSY
    };
    is_found(both_insert_if_absent_win, plan);
}

#[test]
fn two_winners_of_compare_and_swap_are_found() {
    is_found(both_compare_and_swap_win, Plan::BUSY);
}

#[test]
fn a_value_removed_twice_is_found() {
    is_found(value_removed_twice, Plan::BUSY);
}

#[test]
fn reads_that_go_backwards_are_found() {
    is_found(reads_go_backwards, Plan::BUSY);
}

#[test]
fn a_cancelled_write_seen_then_unseen_is_found() {
    is_found(cancelled_write_seen_then_unseen, Plan::BUSY);
}

/// `HISTORIES=100000` looks at more of them.
#[test]
fn histories_of_a_right_register_pass() {
    let histories = std::env::var("HISTORIES").ok();
    let histories = histories.map_or(1000, |number| number.parse().expect("a number"));
    let mut spent = Duration::ZERO;
    let mut slowest = (Duration::ZERO, 0);
    let mut calls = 0;
    for seed in 0..histories {
        let world = random_world(seed);
        let begun = Instant::now();
        let checked = world.history.check();
        let took = begun.elapsed();
        match checked {
            Ok(figures) => calls += figures.calls,
            Err(anomaly) => panic!("an anomaly that is none (seed {seed}): {anomaly}"),
        }
        spent += took;
        slowest = slowest.max((took, seed));
    }
    println!(
        "{histories} histories, {calls} calls, checked in {spent:?}; the slowest: {slowest:?}"
    );
}

fn random_world(seed: u64) -> World {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan {
        tasks: rng.usize(1..=16),
        keys: rng.u64(1..=4),
        values: [0, 0, 3, 8][rng.usize(..4)],
        removals: rng.bool(),
        cancelled: rng.u32(..=12),
        failed: rng.u32(..=12),
    };
    let mut world = World::new(plan, rng.u64(..), false);
    for _ in 0..rng.u8(..4) {
        world.steps(1000);
        world.reopen();
        world.read_all();
    }
    world.steps(1000);
    world.end();
    world
}

/// Sixteen tasks, 200 calls each, hundreds of them without an answer.
#[test]
fn many_unanswered_calls_do_not_slow_the_check() {
    for values in [0, 4] {
        for seed in 0..10 {
            let plan = Plan {
                tasks: 16,
                keys: 4,
                values,
                removals: true,
                cancelled: 10,
                failed: 2,
            };
            let mut world = World::new(plan, seed, false);
            for _ in 0..16 * 200 * 3 {
                world.step();
            }
            world.end();
            let begun = Instant::now();
            let figures = world.history.check();
            println!("{:?} {figures:?}", begun.elapsed());
            assert!(figures.expect("a right history").unanswered > 50);
        }
    }
}

#[test]
fn a_hundred_thousand_calls_on_one_key_are_checked() {
    let plan = Plan {
        tasks: 16,
        keys: 1,
        cancelled: 2,
        ..Plan::BUSY
    };
    let mut world = World::new(plan, 0, false);
    for _ in 0..100 {
        // One call is under way all the time.
        let whole = world.start(Op::Contains);
        for _ in 0..3000 {
            world.step();
        }
        world.tell_the_truth(whole);
        world.reopen();
        world.read_all();
    }
    world.end();
    let begun = Instant::now();
    let figures = world.history.check().expect("a right history");
    println!("{:?} {figures:?}", begun.elapsed());
    assert!(figures.calls > 100_000);
}

/// The search goes as deep as the history is long, and so does the way back.
#[test]
fn depth_costs_no_stack() {
    for (calls, is_right) in [(100_000, true), (20_000, false)] {
        let history = History::new();
        for n in 0_u64..calls {
            let replaced = n.checked_sub(1);
            history.call(0, 0, Op::Insert(n)).returned(replaced);
        }
        if !is_right {
            history.call(0, 0, Op::Get).returned(None);
        }
        assert_eq!(history.check().is_ok(), is_right);
    }
}

/// A call as the second checker sees it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    op: Op,
    begun: usize,
    /// When it was answered, or has to have taken effect.
    end: usize,
    answer: Option<Answer>,
}

/// Tries every order.
fn some_order_explains(calls: &[Seen], state: State) -> bool {
    if calls.iter().all(|call| call.answer.is_none()) {
        return true;
    }
    (0..calls.len()).any(|first| {
        let call = calls[first];
        let mut others = calls.to_vec();
        others.remove(first);
        if call.answer.is_none() && some_order_explains(&others, state) {
            return true;
        }
        // What ended before this one began would come too late; if it may be left out, it is.
        let too_late = |other: &Seen| other.end < call.begun;
        if others
            .iter()
            .any(|other| too_late(other) && other.answer.is_some())
        {
            return false;
        }
        others.retain(|other| !too_late(other));
        let mut state = state;
        let answer = apply(&mut state, call.op);
        call.answer.is_none_or(|expected| expected == answer) && some_order_explains(&others, state)
    })
}

/// At most six calls on one key, most of them answered as a right register does.
fn small_history(rng: &mut Rng, lies: u32) -> (History, Vec<Seen>, State) {
    let start = rng.bool().then(|| rng.u64(..3));
    let history = History::starting_with(start.map(|value| (0, value)));
    let mut world = World::new(
        Plan {
            values: 3,
            removals: true,
            ..Plan::STILL
        },
        rng.u64(..),
        false,
    );
    world.map.insert(0, start);
    let mut seen: Vec<Seen> = Vec::new();
    let mut running: Vec<(usize, Call, Option<Answer>)> = Vec::new();
    let mut clock = 0;
    let mut left = rng.usize(1..=6);
    while left > 0 || !running.is_empty() {
        clock += 1;
        let chance = rng.u32(..100);
        if chance < 4 {
            history.reopened();
            for call in &mut seen {
                call.end = call.end.min(clock);
            }
        } else if left > 0 && (running.is_empty() || chance < 40) {
            left -= 1;
            let op = world.op(0);
            seen.push(Seen {
                op,
                begun: clock,
                end: usize::MAX,
                answer: None,
            });
            running.push((seen.len() - 1, history.call(0, 0, op), None));
        } else if !running.is_empty() {
            let at = rng.usize(..running.len());
            let (index, _, answer) = &mut running[at];
            if answer.is_none() && chance < 95 {
                *answer = Some(world.apply(0, seen[*index].op));
                continue;
            }
            let (index, call, answer) = running.swap_remove(at);
            let call_seen = &mut seen[index];
            match answer {
                Some(_) if chance < 55 => call.unanswered(),
                None if chance < 97 => {
                    // Another operation on another key: it is as if it had not been.
                    call_seen.op = Op::Get;
                    call.failed();
                }
                None => call.unanswered(),
                Some(truth) => {
                    let answer = if rng.u32(..100) < lies {
                        apply(&mut rng.bool().then(|| rng.u64(..4)), call_seen.op)
                    } else {
                        truth
                    };
                    call.returned(answer);
                    call_seen.answer = Some(answer);
                    call_seen.end = call_seen.end.min(clock);
                }
            }
        }
    }
    (history, seen, start)
}

#[test]
fn a_checker_that_tries_every_order_agrees() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let lies = [0, 10, 40][rng.usize(..3)];
        let (history, seen, start) = small_history(&mut rng, lies);
        let checked = history.check();
        let explained = some_order_explains(&seen, start);
        assert_eq!(
            checked.is_ok(),
            explained,
            "seed {seed}, starting with {start:?}: {seen:#?}: {checked:?}"
        );
        *if explained { &mut right } else { &mut wrong } += 1;
    }
    println!("{right} right, {wrong} wrong");
    assert!(right > 2000 && wrong > 2000, "{right} right, {wrong} wrong");
}

#[test]
fn threads_record_one_history() {
    let history = History::new();
    let map = Arc::new(Mutex::new(HashMap::new()));
    std::thread::scope(|scope| {
        for task in 0..8 {
            let (history, map) = (history.clone(), Arc::clone(&map));
            scope.spawn(move || {
                let mut rng = Rng::with_seed(task as u64);
                for n in 0..500 {
                    let key = rng.u64(..2);
                    let op = [Op::Get, Op::Insert(n), Op::Update(1)][rng.usize(..3)];
                    let call = history.call(task, key, op);
                    let answer = apply(map.lock().unwrap().entry(key).or_default(), op);
                    call.returned(answer);
                }
            });
        }
    });
    assert_eq!(history.check().unwrap().answered, 8 * 500);
}

#[test]
#[should_panic(expected = "`true` is no answer to get")]
fn an_answer_of_the_wrong_kind_is_refused() {
    History::new().call(0, 0, Op::Get).returned(true);
}
