//! Golden scripts of one council. `UPDATE_GOLDEN=1` rewrites them; the review reads the difference.
//!
//! Commands, where `n1` is a replica and `all` every one:
//! - `council 3 [pieces=yes] [window=4] [leases=yes]`: begins anew; with pieces, a message holds one entry.
//! - `tick WHO [MILLIS]`: time passes (10 ms unless told) and WHO looks at the clock.
//! - `deliver [FROM] [TO]`, `lose [FROM] [TO]`: what is under way now arrives or is lost.
//! - `sync WHO [COUNT]`: what WHO asked to append is durable.
//! - `settle`: messages and disks go on until nothing is under way; `run MILLIS`: the same, with ticks.
//! - `propose N`, `read N`, `transfer N M`, `snapshot N [trim=yes]`, `crash N`, `restart N`.
//! - `change N N,M,… [learners=N,…] [number=0]`: N, which leads, is ordered to change the replica set; the order is for the
//!   latest configuration unless a number is given. Replicas not seen before join. `configs`: those that count for whom.
//! - `lease N`: N is asked until when it may read by its lease.
//! - `elect N`: lets N be elected, without a word; `stand N`: time passes until N, and nobody else, canvasses.
//! - `cut N M`, `heal`: no message passes between N and M and neither hears the other; all is well again.
//! - `prepare FROM TO BALLOT`: a message out of nowhere.
//! - `network`, `state [WHO]`: what is under way; how the replicas stand.

use std::str::FromStr;

use tholos_golden::{Arguments, Command};
use tholos_paxos::{Ballot, Config, Index, Message, Millis, Options, ReplicaId};

mod common;
use common::{Council, Envelope, Parcel, standing};

#[test]
fn elect() {
    run("elect");
}

#[test]
fn accept() {
    run("accept");
}

#[test]
fn recover() {
    run("recover");
}

#[test]
fn snapshot() {
    run("snapshot");
}

#[test]
fn read() {
    run("read");
}

#[test]
fn lease() {
    run("lease");
}

#[test]
fn transfer() {
    run("transfer");
}

#[test]
fn change() {
    run("change");
}

fn run(folder: &str) {
    tholos_golden::run_dir(format!("tests/golden/{folder}"), || {
        let mut council = Council::traced(3, Options::default());
        move |command: &Command| perform(&mut council, command)
    });
}

/// A replica, or all.
struct Who(Option<ReplicaId>);

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Who, String> {
        if text == "all" {
            return Ok(Who(None));
        }
        let number = text.strip_prefix('n').and_then(|digits| digits.parse().ok());
        number.map(|number| Who(Some(ReplicaId(number)))).ok_or_else(|| "a replica is n1, n2 …".to_string())
    }
}

impl Who {
    fn is(&self, id: ReplicaId) -> bool {
        self.0.is_none_or(|one| one == id)
    }
}

/// `n1,n2,n3` or nothing.
fn numbers(text: &str) -> Result<Vec<u32>, String> {
    let number = |id: &str| id.strip_prefix('n').and_then(|digits| digits.parse().ok());
    let ids = text.split(',').filter(|id| !id.is_empty());
    ids.map(|id| number(id).ok_or_else(|| "replicas are n1,n2 …".to_string())).collect()
}

fn one(args: &mut Arguments<'_>) -> Result<ReplicaId, String> {
    args.next::<Who>("a replica")?.0.ok_or_else(|| "one replica".to_string())
}

fn ballot(text: &str) -> Option<Ballot> {
    let (round, replica) = text.split_once(".n")?;
    Some(Ballot { round: round.parse().ok()?, replica: ReplicaId(replica.parse().ok()?) })
}

fn perform(council: &mut Council, command: &Command) -> Result<String, String> {
    let mut args = command.consume();
    let mut said = Vec::new();
    match command.name.as_str() {
        "council" => {
            let replicas = args.next("a number of replicas")?;
            let mut options = Options::default();
            if args.lookup::<String>("pieces")?.is_some() {
                options.message_bytes_max = 1;
            }
            if let Some(window) = args.lookup("window")? {
                options.window_entries_max = window;
            }
            if let Some(bytes) = args.lookup("unaccepted")? {
                options.follower_bytes_max = bytes;
            }
            options.leases = args.lookup::<String>("leases")?.is_some();
            *council = Council::traced(replicas, options);
        }
        "tick" => {
            let who: Who = args.next("who")?;
            let millis = args.next_if_any("milliseconds")?.unwrap_or(10);
            council.now = council.now.plus(Millis(millis));
            for id in council.ids().into_iter().filter(|id| who.is(*id)) {
                council.tick(id);
            }
        }
        "deliver" | "lose" => {
            let from = args.next_if_any("from")?.unwrap_or(Who(None));
            let to = args.next_if_any("to")?.unwrap_or(Who(None));
            let arrives = command.name == "deliver";
            let meant = |envelope: &Envelope| from.is(envelope.from) && to.is(envelope.to);
            let (now, later): (Vec<_>, Vec<_>) = council.network.drain(..).partition(meant);
            council.network.extend(later);
            for envelope in now.into_iter().filter(|_| arrives) {
                if !council.links.is_cut(&envelope) {
                    council.deliver(envelope);
                }
            }
        }
        "sync" => {
            let who: Who = args.next("who")?;
            let count = args.next_if_any("a count")?.unwrap_or(usize::MAX);
            for id in council.ids().into_iter().filter(|id| who.is(*id)) {
                council.make_durable(id, count);
            }
        }
        "settle" => council.settle(),
        "run" => {
            let millis = args.next("milliseconds")?;
            council.run(millis);
        }
        "propose" => {
            let id = one(&mut args)?;
            if let Err(error) = council.try_propose(id) {
                said.push(format!("refused: {error:?}"));
            }
        }
        "read" => {
            let id = one(&mut args)?;
            match council.read(id) {
                Some(token) => said.push(format!("read {token}")),
                None => said.push("refused".to_string()),
            }
        }
        "lease" => {
            let id = one(&mut args)?;
            said.push(match council.read_by_lease(id) {
                Some(until) => format!("reads for {} ms", until.since(council.now).0),
                None => "no lease".to_string(),
            });
        }
        "transfer" => {
            let (from, to) = (one(&mut args)?, one(&mut args)?);
            if !council.transfer(from, to) {
                said.push("refused".to_string());
            }
        }
        "change" => {
            let id = one(&mut args)?;
            let voters = numbers(&args.next::<String>("voters")?)?;
            let learners = numbers(&args.lookup::<String>("learners")?.unwrap_or_default())?;
            let result = match args.lookup("number")? {
                Some(number) => council.change_from(number, id, &voters, &learners),
                None => council.change(id, &voters, &learners),
            };
            if let Err(error) = result {
                said.push(format!("refused: {error}"));
            }
        }
        "configs" => {
            for replica in &council.replicas {
                let Some(group) = &replica.group else { continue };
                let all: Vec<String> = group.configs().map(Config::to_string).collect();
                said.push(format!("{}: {}", replica.id, all.join(" and ")));
            }
        }
        "snapshot" => {
            let id = one(&mut args)?;
            let trim = args.lookup::<String>("trim")?.is_some();
            council.snapshot(id, trim);
        }
        "crash" => {
            let id = one(&mut args)?;
            council.crash(id);
        }
        "restart" => {
            let id = one(&mut args)?;
            council.restart(id);
        }
        "cut" => {
            let (a, b) = (one(&mut args)?, one(&mut args)?);
            council.cut_between(a.0, b.0);
        }
        "heal" => council.heal(),
        "elect" => {
            let id = one(&mut args)?;
            let ballot = council.elect(id.0);
            council.take_trace();
            said.push(format!("{id} serves in {ballot}"));
        }
        "stand" => {
            let id = one(&mut args)?;
            stand(council, id)?;
        }
        "prepare" => {
            let (from, to) = (one(&mut args)?, one(&mut args)?);
            let text: String = args.next("a ballot")?;
            let ballot = ballot(&text).ok_or("a ballot is 3.n2")?;
            let message = Message::Prepare { ballot, decided: Index::ZERO, released: None };
            council.deliver(Envelope { from, to, parcel: Parcel::Message(message) });
        }
        "network" => said.extend(council.network.iter().map(Envelope::to_string)),
        "state" => {
            let who = args.next_if_any("who")?.unwrap_or(Who(None));
            for replica in council.replicas.iter().filter(|replica| who.is(replica.id)) {
                said.push(format!(
                    "{} {}",
                    replica.id,
                    replica.group.as_ref().map_or("is down".into(), standing)
                ));
            }
        }
        other => return Err(format!("unknown command {other}")),
    }
    args.finish()?;
    let mut lines = council.take_trace();
    lines.extend(said);
    Ok(lines.join("\n"))
}

/// Ticks all until `id` canvasses; the canvasses of others are lost.
fn stand(council: &mut Council, id: ReplicaId) -> Result<(), String> {
    let canvass = |envelope: &Envelope| matches!(envelope.parcel, Parcel::Message(Message::Canvass { .. }));
    for _ in 0..100 {
        council.now = council.now.plus(Millis(10));
        let trace = council.take_trace();
        for other in council.ids().into_iter().filter(|other| *other != id) {
            council.tick(other);
        }
        council.network.retain(|envelope| !canvass(envelope));
        council.trace = Some(trace);
        council.tick(id);
        if council.network.iter().any(canvass) {
            return Ok(());
        }
    }
    Err(format!("{id} does not stand"))
}
