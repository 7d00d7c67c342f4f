//! What is done to the nodes.

use super::process::Cluster;

/// One kind of misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    KillOne,
    KillTwo,
    KillAll,
    /// SIGSTOP, and later SIGCONT: the node believes that no time has passed.
    PauseOne,
}

impl Act {
    /// Strikes, and says whom.
    pub(crate) fn strike(self, cluster: &mut Cluster, random: &mut Random) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..cluster.count()).collect();
        let wanted = match self {
            Act::KillOne | Act::PauseOne => 1,
            Act::KillTwo => 2,
            Act::KillAll => nodes.len(),
        };
        while nodes.len() > wanted {
            nodes.swap_remove(random.below(nodes.len() as u64) as usize);
        }
        match self {
            Act::PauseOne => nodes.iter().for_each(|&i| cluster.signal(i, "-STOP")),
            _ => cluster.kill(&nodes),
        }
        nodes
    }

    pub(crate) fn heal(self, cluster: &mut Cluster, victims: &[usize]) {
        for &i in victims {
            match self {
                Act::PauseOne => cluster.signal(i, "-CONT"),
                _ => cluster.start(i),
            }
        }
    }
}

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
