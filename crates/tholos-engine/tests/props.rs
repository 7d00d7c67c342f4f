//! Properties: the engine against a model that is too simple to be wrong, and the rules replicas live by.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{run, show};
use proptest::prelude::*;
use tholos_engine::{Command, Context, Keyspace, Loader, Transaction};
use tholos_resp::Value;

/// One thing a client does; keys are `k0` to `k5`.
#[derive(Clone, Debug)]
enum Step {
    Set(u8, String),
    SetFor(u8, String, u64),
    Get(u8),
    Del(u8),
    IncrBy(u8, i64),
    Append(u8, String),
    ExpireIn(u8, i64),
    Persist(u8),
    Ttl(u8),
    Rename(u8, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    let text = prop_oneof!["[a-c]{0,5}", "-?[0-9]{1,19}", "x{1020,1030}"];
    prop_oneof![
        (key.clone(), text.clone()).prop_map(|(key, text)| Step::Set(key, text)),
        (key.clone(), text.clone(), 1..50_u64).prop_map(|(key, text, time)| Step::SetFor(key, text, time)),
        key.clone().prop_map(Step::Get),
        key.clone().prop_map(Step::Del),
        (key.clone(), prop_oneof![-9..9_i64, any::<i64>()]).prop_map(|(key, by)| Step::IncrBy(key, by)),
        (key.clone(), text).prop_map(|(key, text)| Step::Append(key, text)),
        (key.clone(), -5..50_i64).prop_map(|(key, time)| Step::ExpireIn(key, time)),
        key.clone().prop_map(Step::Persist),
        key.clone().prop_map(Step::Ttl),
        (key.clone(), key).prop_map(|(from, to)| Step::Rename(from, to)),
        (0..40_u64).prop_map(Step::Wait),
    ]
}

/// Texts with their expiry, and the time.
#[derive(Default)]
struct Model {
    keys: BTreeMap<u8, (String, Option<u64>)>,
    now: u64,
}

impl Model {
    /// The command line of a step, and the reply it should get, as [`show`] writes it.
    fn step(&mut self, step: &Step) -> Option<(String, String)> {
        let now = self.now;
        self.keys.retain(|_, (_, expire)| expire.is_none_or(|at| at > now));
        Some(match step {
            Step::Wait(time) => {
                self.now += time;
                return None;
            }
            Step::Set(key, text) => {
                self.keys.insert(*key, (text.clone(), None));
                (format!("SET k{key} \"{text}\""), "OK".to_string())
            }
            Step::SetFor(key, text, time) => {
                self.keys.insert(*key, (text.clone(), Some(now + time)));
                (format!("SET k{key} \"{text}\" PX {time}"), "OK".to_string())
            }
            Step::Get(key) => {
                let reply = self.keys.get(key).map_or("nil".to_string(), |(text, _)| format!("\"{text}\""));
                (format!("GET k{key}"), reply)
            }
            Step::Del(key) => (format!("DEL k{key}"), u8::from(self.keys.remove(key).is_some()).to_string()),
            Step::IncrBy(key, by) => (format!("INCRBY k{key} {by}"), self.incr_by(*key, *by)),
            Step::Append(key, more) => {
                let (text, _) = self.keys.entry(*key).or_default();
                text.push_str(more);
                (format!("APPEND k{key} \"{more}\""), text.len().to_string())
            }
            Step::ExpireIn(key, time) => {
                let found = self
                    .keys
                    .get_mut(key)
                    .map(|(_, expire)| *expire = Some(now.saturating_add_signed(*time)));
                (format!("PEXPIRE k{key} {time}"), u8::from(found.is_some()).to_string())
            }
            Step::Persist(key) => {
                let had = self.keys.get_mut(key).and_then(|(_, expire)| expire.take());
                (format!("PERSIST k{key}"), u8::from(had.is_some()).to_string())
            }
            Step::Ttl(key) => {
                let reply = match self.keys.get(key) {
                    None => "-2".to_string(),
                    Some((_, None)) => "-1".to_string(),
                    Some((_, Some(at))) => (at - now).to_string(),
                };
                (format!("PTTL k{key}"), reply)
            }
            Step::Rename(from, to) => {
                let reply = match self.keys.remove(from) {
                    None => "-ERR no such key".to_string(),
                    Some(value) => {
                        self.keys.insert(*to, value);
                        "OK".to_string()
                    }
                };
                (format!("RENAME k{from} k{to}"), reply)
            }
        })
    }

    fn incr_by(&mut self, key: u8, by: i64) -> String {
        let (text, _) = self.keys.get(&key).cloned().unwrap_or(("0".to_string(), None));
        let canonical = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        let Some(number) = canonical else {
            return "-ERR value is not an integer or out of range".to_string();
        };
        let Some(sum) = number.checked_add(by) else {
            return "-ERR increment or decrement would overflow".to_string();
        };
        self.keys.entry(key).or_default().0 = sum.to_string();
        sum.to_string()
    }
}

fn context(time_ms: u64, index: u64) -> Context {
    Context { time_ms, seed: index, index, position: 0 }
}

fn snapshot(keyspace: &mut Keyspace, slice: usize) -> Vec<u8> {
    keyspace.begin_snapshot(slice);
    let mut bytes = Vec::new();
    while let Some(chunk) = keyspace.next_snapshot_chunk(slice % 7 + 1) {
        bytes.extend(chunk);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn engine_answers_as_the_model_does(steps in prop::collection::vec(step(), 1..80), evict in 0..3_usize) {
        let mut model = Model { now: 1_000_000, ..Model::default() };
        let mut keyspace = Keyspace::new(0..16384, 7);
        for (index, step) in (1..).zip(&steps) {
            let Some((line, expected)) = model.step(step) else { continue };
            keyspace.evict_due(model.now, evict);
            let reply = run(&mut keyspace, &context(model.now, index), &line);
            prop_assert_eq!(show(&reply), expected, "{}", line);
            let alive = model.keys.values().filter(|(_, expire)| expire.is_none_or(|at| at > model.now)).count();
            prop_assert_eq!(keyspace.len(model.now), alive);
        }
    }

    #[test]
    fn replicas_agree_also_one_that_came_by_snapshot(
        steps in prop::collection::vec(step(), 1..60), at in 0..60_usize, slice in 1..300_usize,
    ) {
        let mut clock = Model { now: 1_000_000, ..Model::default() };
        let mut first = Keyspace::new(0..16384, 7);
        let mut second: Option<Keyspace> = None;
        for (index, step) in (1..).zip(&steps) {
            if index as usize == at {
                let bytes = snapshot(&mut first, slice);
                let mut loader = Loader::new();
                for chunk in bytes.chunks(slice * 3 / 2 + 1) {
                    loader.push(chunk).unwrap();
                }
                second = Some(loader.finish().unwrap());
            }
            let Some((line, _)) = clock.step(step) else { continue };
            let context = context(clock.now, index);
            let reply = run(&mut first, &context, &line);
            first.evict_due(clock.now, 1);
            if let Some(second) = &mut second {
                prop_assert_eq!(run(second, &context, &line), reply);
                second.evict_due(clock.now, 1);
                prop_assert_eq!(second.digest(), first.digest());
                prop_assert_eq!(second.next_due_ms(), first.next_due_ms());
                for key in ["k0", "k1", "k2"] {
                    prop_assert_eq!(second.version(key.as_bytes(), clock.now), first.version(key.as_bytes(), clock.now));
                }
            }
        }
    }

    #[test]
    fn exec_goes_on_exactly_if_nothing_watched_has_changed(
        before in prop::collection::vec(step(), 0..20), between in prop::collection::vec(step(), 0..4), key in 0..6_u8,
    ) {
        let mut model = Model { now: 1_000_000, ..Model::default() };
        let mut keyspace = Keyspace::new(0..16384, 7);
        let name = format!("k{key}");
        let mut index = 0;
        let mut play = |model: &mut Model, keyspace: &mut Keyspace, steps: &[Step]| {
            let mut named = false;
            for (line, _) in steps.iter().filter_map(|step| model.step(step)).collect::<Vec<_>>() {
                index += 1;
                run(keyspace, &context(model.now, index), &line);
                named |= line.split(' ').any(|word| word == name);
            }
            named
        };
        // Time stands still within a batch of steps here, as `play` applies them at the model's last time.
        let still = |steps: &[Step]| steps.iter().filter(|step| !matches!(step, Step::Wait(_))).cloned().collect::<Vec<_>>();
        play(&mut model, &mut keyspace, &still(&before));
        model.now += 10;
        let visible = |model: &Model| {
            let (text, expire) = model.keys.get(&key)?;
            expire.is_none_or(|at| at > model.now).then(|| text.clone())
        };
        let (seen, version) = (visible(&model), keyspace.version(name.as_bytes(), model.now));
        let named = play(&mut model, &mut keyspace, &still(&between));
        model.now += 10;
        let changed = visible(&model) != seen;
        let transaction = Transaction {
            watched: vec![(Bytes::from(name), version)],
            commands: vec![Command::parse(&common::words("GET k0")).unwrap()],
        };
        let reply = transaction.apply(&context(model.now, 1000), &mut keyspace);
        if changed {
            prop_assert_eq!(reply, Value::NullArray, "{:?}", between);
        } else if !named {
            prop_assert!(matches!(reply, Value::Array(_)), "nothing changed it: {:?}", between);
        }
    }

    #[test]
    fn no_arguments_make_the_engine_panic(
        name in 0..200_usize, args in prop::collection::vec(prop_oneof![
            any::<Vec<u8>>().prop_map(|bytes| bytes.into_iter().take(12).collect::<Vec<u8>>()),
            prop::sample::select(vec!["k0", "EX", "PX", "EXAT", "GET", "IDX", "0", "-1", "9223372036854775807",
                "-9223372036854775808", "67108864", "NX", "DB", "MATCH", "COUNT", "1e4932", "1e-4951"])
                .prop_map(|word| word.as_bytes().to_vec()),
        ], 0..6), time in prop_oneof![Just(0), Just(1_000_000), Just(u64::MAX)],
    ) {
        let specs = tholos_engine::table::all();
        let mut line = vec![Bytes::from(specs[name % specs.len()].name)];
        line.extend(args.into_iter().map(Bytes::from));
        let mut keyspace = Keyspace::new(0..16384, 7);
        run(&mut keyspace, &context(1, 1), "MSET k0 12 k1 text");
        if let Ok(command) = Command::queue(&line) {
            keyspace.apply(&context(time, 2), &command);
        }
        let _ = tholos_engine::wide::Wide::parse(&line);
        let _ = tholos_engine::introspect::command(&line);
    }

    #[test]
    fn bytes_that_are_no_snapshot_never_panic(bytes in any::<Vec<u8>>(), at in 0..200_usize) {
        let mut keyspace = Keyspace::new(0..16384, 7);
        run(&mut keyspace, &context(1, 1), "MSET k0 12 k1 text");
        let mut damaged = snapshot(&mut keyspace, 1000);
        let at = at.min(damaged.len());
        let end = damaged.len().min(at + bytes.len());
        damaged[at..end].copy_from_slice(&bytes[..end - at]);
        let mut loader = Loader::new();
        if loader.push(&damaged).is_ok() {
            let _ = loader.finish();
        }
    }
}
