//! Makes a failing schedule small: fewer kinds of faults, fewer steps.

use super::mood::{KINDS, Mood};
use super::{Settings, run};

/// A failing schedule made small.
pub struct Shrunk {
    /// It fails each time.
    pub settings: Settings,
    /// How.
    pub violation: String,
    /// Schedules that were tried.
    pub runs: u32,
}

/// Shrinks a schedule that fails with `violation`, in at most so many runs. Any violation counts; it need not be the
/// first one's text.
pub fn shrink(settings: &Settings, violation: String, runs_max: u32) -> Shrunk {
    let all = (0..Mood::of(settings.seed, settings.planted).steps).collect();
    let steps = Some(settings.steps.clone().unwrap_or(all));
    let settings = Settings { steps, trace: false, ..settings.clone() };
    let mut shrunk = Shrunk { settings, violation, runs: 0 };
    loop {
        let before = (shrunk.steps().len(), shrunk.settings.without.len());
        for kind in KINDS {
            if !shrunk.settings.without.contains(&kind) {
                let mut fewer = shrunk.settings.clone();
                fewer.without.push(kind);
                shrunk.attempt(fewer);
            }
        }
        shrunk.drop_steps(runs_max);
        if before == (shrunk.steps().len(), shrunk.settings.without.len()) || shrunk.runs >= runs_max {
            return shrunk;
        }
    }
}

impl Shrunk {
    fn steps(&self) -> &[usize] {
        self.settings.steps.as_deref().unwrap_or_default()
    }

    /// Takes a smaller one over if it fails.
    fn attempt(&mut self, smaller: Settings) -> bool {
        self.runs += 1;
        let Some(violation) = run(&smaller).violation else { return false };
        (self.settings, self.violation) = (smaller, violation);
        true
    }

    /// Delta debugging (Zeller and Hildebrandt, 2002), in halves, quarters and so on, the last steps first.
    fn drop_steps(&mut self, runs_max: u32) {
        let mut piece = self.steps().len().div_ceil(2);
        while piece > 0 {
            let mut end = self.steps().len();
            while end > 0 && self.runs < runs_max {
                let from = end.saturating_sub(piece);
                let mut fewer = self.steps().to_vec();
                fewer.drain(from..end);
                self.attempt(Settings { steps: Some(fewer), ..self.settings.clone() });
                end = from;
            }
            piece /= 2;
        }
    }
}
