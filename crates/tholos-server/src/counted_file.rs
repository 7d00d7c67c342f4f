//! What this node has counted of the other nodes' logs, kept in its directory so that it outlives a restart (R21).
//!
//! It may be late: what was counted since it was last written is forgotten by a kill, and the other nodes, which count
//! for themselves, may still know. So it is written now and then, beside and renamed, and one that cannot be read is as
//! good as none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tholos_cluster::{ClusterMap, NodeId};
use tholos_node::CountedOf;

use crate::server::NodeHandle;

/// How often it is written, if it has changed.
const INTERVAL: Duration = Duration::from_secs(5);
const FILE: &str = "counted";
const HEADING: &str = "tholos counted 2";

/// By node: what is counted of its log.
pub(crate) type CountedLsns = BTreeMap<NodeId, CountedOf>;

/// What the directory says of the nodes that are in the map under the incarnation it was counted of.
pub(crate) fn read(directory: &Path, map: &ClusterMap) -> CountedLsns {
    let path = directory.join(FILE);
    let read = fs::read_to_string(&path).and_then(|text| {
        parse(&text, map).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
    });
    match read {
        Ok(counted) => counted,
        Err(error) if error.kind() == io::ErrorKind::NotFound => CountedLsns::new(),
        Err(error) => {
            tracing::warn!(
                path = %path.display(), %error,
                "what was counted of the other nodes' logs is forgotten; one that went back in time may not be noticed here"
            );
            CountedLsns::new()
        }
    }
}

/// Writes what the node has counted now and then, until it ends.
pub(crate) async fn keep(node: NodeHandle, directory: PathBuf, mut written: CountedLsns) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let looked = node.inspect(|node| {
            let counted: CountedLsns = node.counted().filter(|(_, counted)| counted.lsn > 0).collect();
            (text_of(&counted, node.map()), counted)
        });
        let Some((text, counted)) = looked.await else { return };
        if counted == written {
            continue;
        }
        let directory = directory.clone();
        let stored = tokio::task::spawn_blocking(move || write(&directory, &text)).await;
        match stored {
            Ok(Ok(())) => written = counted,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what is counted of the other nodes' logs cannot be written, and is tried again");
            }
            Err(_) => return,
        }
    }
}

fn text_of(counted: &CountedLsns, map: &ClusterMap) -> String {
    let mut text = format!("{HEADING}\n");
    for (node, CountedOf { boot, before, lsn }) in counted {
        if let Some(row) = map.node(*node) {
            writeln!(text, "{} {} {boot} {before} {lsn}", node.0, row.incarnation)
                .expect("a string takes all");
        }
    }
    let crc = crc32c::crc32c(text.as_bytes());
    writeln!(text, "crc32c {crc:08x}").expect("a string takes all");
    text
}

/// None if it is not whole.
fn parse(text: &str, map: &ClusterMap) -> Option<CountedLsns> {
    let (body, crc) = text.rsplit_once("crc32c ")?;
    if crc.strip_suffix('\n')? != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != HEADING {
        return None;
    }
    let mut counted = CountedLsns::new();
    for line in lines {
        let [node, incarnation, boot, before, lsn] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        let node = NodeId(node.parse().ok()?);
        // A node that was made anew starts at nothing.
        if map.node(node).is_some_and(|row| row.incarnation.to_string() == incarnation) {
            let (boot, before) = (boot.parse().ok()?, before.parse().ok()?);
            counted.insert(node, CountedOf { boot, before, lsn: lsn.parse().ok()? });
        }
    }
    Some(counted)
}

fn write(directory: &Path, text: &str) -> io::Result<()> {
    let (new, file) = (directory.join(format!("{FILE}.tmp")), directory.join(FILE));
    let mut stored = File::create(&new)?;
    stored.write_all(text.as_bytes())?;
    stored.sync_data()?;
    fs::rename(&new, &file)
}

#[cfg(test)]
mod tests {
    use tholos_cluster::{ClusterId, Incarnation, NodeRow};

    use super::*;

    fn map(incarnation: u64) -> ClusterMap {
        let row = |number: u16| NodeRow {
            id: NodeId(number),
            name: format!("n{number}"),
            zone: String::new(),
            weight: 1,
            incarnation: Incarnation(incarnation + u64::from(number)),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        };
        ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), 2, 3).unwrap()
    }

    fn some() -> CountedLsns {
        let of = |boot, before, lsn| CountedOf { boot, before, lsn };
        CountedLsns::from([(NodeId(2), of(u64::MAX, 0, 1024)), (NodeId(3), of(7, 512, 4096))])
    }

    #[test]
    fn what_is_written_is_read_and_only_of_the_same_incarnations() {
        let counted = some();
        let text = text_of(&counted, &map(40));
        assert_eq!(parse(&text, &map(40)), Some(counted));
        assert_eq!(parse(&text, &map(50)), Some(CountedLsns::new()));
    }

    #[test]
    fn any_damage_is_noticed() {
        let text = text_of(&some(), &map(40)).into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[at] ^= 1 << bit;
                let read = String::from_utf8(damaged).ok().and_then(|text| parse(&text, &map(40)));
                assert_eq!(read, None, "byte {at} bit {bit}");
            }
            let cut = std::str::from_utf8(&text[..at]).unwrap();
            assert_eq!(parse(cut, &map(40)), None, "cut at {at}");
        }
    }
}
