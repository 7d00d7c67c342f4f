//! The bytes of the handshake: opening, challenge, hello and verdict.
//!
//! `docs/protocol/rpc.md` draws them. The opening and the challenge keep their layout in every later version;
//! what follows them may change with the version they agree on. Decoders take any bytes and never panic.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes};

use crate::config::{ADVERTISED_BYTES_MAX, CLUSTER_ID_BYTES, Lane, LocalHello, NAME_BYTES_MAX, PeerHello};
use crate::secret::{NONCE_BYTES, TAG_BYTES};

/// The first bytes of both sides.
pub(crate) const MAGIC: [u8; 8] = *b"THOLOSRP";

/// The versions this build speaks, lowest and highest.
pub(crate) const VERSIONS: (u16, u16) = (1, 1);

/// Bytes of an opening and of a challenge, tag included.
pub(crate) const OPENING_BYTES: usize = 8 + 4 + 4 + NONCE_BYTES + TAG_BYTES;

/// Bytes of a hello or verdict after its length field, at most.
pub(crate) const HELLO_BYTES_MAX: usize =
    1 + 2 + (1 + CLUSTER_ID_BYTES) + 2 + 4 * 8 + 1 + NAME_BYTES_MAX + 2 + ADVERTISED_BYTES_MAX + TAG_BYTES;

/// The opening (dialler) or the challenge (listener): a nonce and the versions a side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) versions: (u16, u16),
    pub(crate) secured: bool,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

impl Opening {
    /// Everything but the tag.
    pub(crate) fn encode(&self) -> [u8; OPENING_BYTES - TAG_BYTES] {
        let mut bytes = [0; OPENING_BYTES - TAG_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u16_le(self.versions.0);
        out.put_u16_le(self.versions.1);
        // The three zero bytes are for later versions; a reader ignores them, and the tag covers them.
        out.put_u32_le(u32::from(self.secured));
        out.put_slice(&self.nonce);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote, the tag aside; None if it is not ours.
    pub(crate) fn decode(bytes: &[u8; OPENING_BYTES]) -> Option<Opening> {
        let mut rest = &bytes[..];
        if rest[..8] != MAGIC {
            return None;
        }
        rest.advance(8);
        let versions = (rest.get_u16_le(), rest.get_u16_le());
        let secured = rest.get_u32_le() & 1 == 1;
        let mut nonce = [0; NONCE_BYTES];
        rest.copy_to_slice(&mut nonce);
        Some(Opening { versions, secured, nonce })
    }

    /// The highest version both ranges have.
    pub(crate) fn common_version(&self, other: (u16, u16)) -> Option<u16> {
        let highest = self.versions.1.min(other.1);
        (highest >= self.versions.0.max(other.0)).then_some(highest)
    }
}

/// What the dialler wants the connection for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Lane(Lane),
    Query,
}

impl Purpose {
    fn to_byte(self) -> u8 {
        match self {
            Purpose::Lane(Lane::Log) => 1,
            Purpose::Lane(Lane::Bulk) => 2,
            Purpose::Query => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Purpose> {
        [Purpose::Lane(Lane::Log), Purpose::Lane(Lane::Bulk), Purpose::Query]
            .into_iter()
            .find(|purpose| purpose.to_byte() == byte)
    }
}

/// The listener's answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome = 0,
    OtherCluster = 1,
    UnknownNode = 2,
    WrongNode = 3,
    Duplicate = 4,
    NotYourTurn = 5,
    Busy = 6,
}

impl Verdict {
    const ALL: [Verdict; 7] = [
        Verdict::Welcome,
        Verdict::OtherCluster,
        Verdict::UnknownNode,
        Verdict::WrongNode,
        Verdict::Duplicate,
        Verdict::NotYourTurn,
        Verdict::Busy,
    ];

    fn from_byte(byte: u8) -> Option<Verdict> {
        Verdict::ALL.into_iter().find(|verdict| *verdict as u8 == byte)
    }
}

/// Who a side is, in a hello or a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: Option<[u8; CLUSTER_ID_BYTES]>,
    pub(crate) node: u16,
    pub(crate) incarnation: u64,
    pub(crate) boot: u64,
    pub(crate) nonce: u64,
    pub(crate) recovered_lsn: u64,
    pub(crate) name: String,
    pub(crate) advertised: Bytes,
}

impl Identity {
    pub(crate) fn new(me: &LocalHello, nonce: u64) -> Identity {
        Identity {
            cluster_id: me.cluster_id,
            node: me.node,
            incarnation: me.incarnation,
            boot: me.boot,
            nonce,
            recovered_lsn: me.recovered_lsn,
            name: me.name.clone(),
            advertised: me.advertised.clone(),
        }
    }

    /// The identity of one who only asks: it has none.
    pub(crate) fn anonymous() -> Identity {
        Identity {
            cluster_id: None,
            node: 0,
            incarnation: 0,
            boot: 0,
            nonce: 0,
            recovered_lsn: 0,
            name: String::new(),
            advertised: Bytes::new(),
        }
    }

    pub(crate) fn into_peer_hello(self, address: SocketAddr) -> PeerHello {
        PeerHello {
            cluster_id: self.cluster_id,
            node: self.node,
            name: self.name,
            incarnation: self.incarnation,
            boot: self.boot,
            nonce: self.nonce,
            recovered_lsn: self.recovered_lsn,
            advertised: self.advertised,
            address,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.name.len() <= NAME_BYTES_MAX, "the name was checked at start");
        assert!(self.advertised.len() <= ADVERTISED_BYTES_MAX, "the rows were checked when they were set");
        out.put_u8(u8::from(self.cluster_id.is_some()));
        out.put_slice(&self.cluster_id.unwrap_or_default());
        out.put_u16_le(self.node);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.boot);
        out.put_u64_le(self.nonce);
        out.put_u64_le(self.recovered_lsn);
        out.put_u8(u8::try_from(self.name.len()).expect("checked above"));
        out.put_slice(self.name.as_bytes());
        out.put_u16_le(u16::try_from(self.advertised.len()).expect("checked above"));
        out.put_slice(&self.advertised);
    }

    fn decode(rest: &mut &[u8]) -> Option<Identity> {
        let has_cluster = match rest.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut cluster = [0; CLUSTER_ID_BYTES];
        rest.try_copy_to_slice(&mut cluster).ok()?;
        let node = rest.try_get_u16_le().ok()?;
        let incarnation = rest.try_get_u64_le().ok()?;
        let boot = rest.try_get_u64_le().ok()?;
        let nonce = rest.try_get_u64_le().ok()?;
        let recovered_lsn = rest.try_get_u64_le().ok()?;
        let name_bytes = rest.try_get_u8().ok()? as usize;
        let name = std::str::from_utf8(rest.get(..name_bytes)?).ok()?.to_owned();
        rest.advance(name_bytes);
        let advertised_bytes = rest.try_get_u16_le().ok()? as usize;
        if advertised_bytes > ADVERTISED_BYTES_MAX {
            return None;
        }
        let advertised = Bytes::copy_from_slice(rest.get(..advertised_bytes)?);
        rest.advance(advertised_bytes);
        let cluster_id = has_cluster.then_some(cluster);
        Some(Identity { cluster_id, node, incarnation, boot, nonce, recovered_lsn, name, advertised })
    }
}

/// The dialler's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) purpose: Purpose,
    /// The node it believes it dialled; 0 in a query, which asks whoever is there.
    pub(crate) expects: u16,
    pub(crate) identity: Identity,
}

impl Hello {
    /// Everything but length and tag.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put_u8(self.purpose.to_byte());
        out.put_u16_le(self.expects);
        self.identity.encode(&mut out);
        out
    }

    /// Reads a whole body; bytes left over make it none of ours.
    pub(crate) fn decode(mut body: &[u8]) -> Option<Hello> {
        let rest = &mut body;
        let purpose = Purpose::from_byte(rest.try_get_u8().ok()?)?;
        let expects = rest.try_get_u16_le().ok()?;
        let identity = Identity::decode(rest)?;
        rest.is_empty().then_some(Hello { purpose, expects, identity })
    }
}

/// The listener's answer: its verdict and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) identity: Identity,
}

impl Answer {
    /// Everything but length and tag.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put_u8(self.verdict as u8);
        self.identity.encode(&mut out);
        out
    }

    /// Reads a whole body; bytes left over make it none of ours.
    pub(crate) fn decode(mut body: &[u8]) -> Option<Answer> {
        let rest = &mut body;
        let verdict = Verdict::from_byte(rest.try_get_u8().ok()?)?;
        let identity = Identity::decode(rest)?;
        rest.is_empty().then_some(Answer { verdict, identity })
    }
}

#[cfg(test)]
mod tests;
