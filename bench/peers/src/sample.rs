//! Random choices that a seed repeats, and the processor time of other processes.

/// Clock ticks of /proc/PID/stat in a second: USER_HZ, 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// SplitMix64: fast, and good enough to pick keys.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// User and system time of the processes so far, in microseconds; of their threads too, not of their children.
pub(crate) fn cpu_us(pids: &[u32]) -> Result<u64, String> {
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        ticks += ticks_of(&stat).ok_or_else(|| format!("{path} has an unknown form"))?;
    }
    Ok(ticks * (1_000_000 / TICKS_PER_SECOND))
}

/// The 14th and 15th field; the second may hold blanks and ends with the last parenthesis.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
