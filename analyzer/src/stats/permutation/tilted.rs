//! Small p-values of the block test by importance sampling: relabellings are drawn near the observed statistic and
//! weighted back.
//!
//! Each case draws an entry of its table with probability proportional to exp(s x entry), with s the saddlepoint at
//! which the mean sum is the observed one. A draw counts with its likelihood ratio. The observed labelling is among
//! the draws with its own weight, so the p-value is valid for any number of draws (Harrison 2012), and tails need no
//! million permutations.

use crate::stats::stream::Stream;
use crate::stats::variance::float;

/// Number of Newton steps towards the saddlepoint; a rough saddlepoint costs some precision and no validity.
const STEPS: u32 = 12;

/// Largest tilt of the widest table, in natural logarithms.
const STEEPEST: f64 = 30.0;

/// Denominator of the integer probabilities.
const WHOLE: u64 = 1 << 32;

/// Number of leading bits by which draws are looked up first.
const GUIDE_BITS: u32 = 8;

/// A distinct value of a table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    value: f64,
    count: f64,
    /// Random numbers below this draw this entry or an earlier one.
    below: u64,
    /// Logarithm of the likelihood ratio, plain over tilted.
    log_weight: f64,
}

/// Tables with their tilted probabilities, concatenated.
#[derive(Debug)]
pub(super) struct Tilted {
    entries: Vec<Entry>,
    /// Start and end of each case.
    spans: Vec<(usize, usize)>,
    /// For each case, the first entry possible for a draw with these leading bits.
    guides: Vec<[u16; 1 << GUIDE_BITS]>,
    /// Likelihood ratio of the observed labelling.
    pub(super) observed_weight: f64,
}

/// A drawn relabelling.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) sum: f64,
    pub(super) squares: f64,
    log_weight: f64,
}

impl Drawn {
    /// Likelihood ratio of the draw.
    pub(super) fn weight(&self) -> f64 {
        self.log_weight.exp()
    }
}

impl Tilted {
    /// Tilts the tables towards the sum of their first entries, or towards `target`.
    pub(super) fn new<'a>(tables: impl Iterator<Item = &'a [f64]>, target: Option<f64>) -> Self {
        let mut tilted =
            Self { entries: Vec::new(), spans: Vec::new(), guides: Vec::new(), observed_weight: 1.0 };
        let mut observed = Vec::new();
        for table in tables {
            let first = tilted.entries.len();
            let mut sorted = table.to_vec();
            sorted.sort_by(f64::total_cmp);
            for value in sorted {
                match tilted.entries[first..].last_mut().filter(|held| held.value == value) {
                    Some(held) => held.count += 1.0,
                    None => tilted.entries.push(Entry { value, count: 1.0, below: 0, log_weight: 0.0 }),
                }
            }
            tilted.spans.push((first, tilted.entries.len()));
            observed.push(table[0]);
        }
        let tilt = tilted.saddlepoint(target.unwrap_or_else(|| observed.iter().sum()));
        tilted.tilt(tilt);
        tilted.guides = tilted.tables().map(guide).collect();
        tilted.observed_weight = tilted.weight_of(&observed).exp();
        tilted
    }

    fn tables(&self) -> impl Iterator<Item = &[Entry]> {
        self.spans.iter().map(|(start, end)| &self.entries[*start..*end])
    }

    /// First two derivatives at `s` of the sum of ln mean exp(s value).
    fn derivatives(&self, s: f64) -> (f64, f64) {
        let (mut first, mut second) = (0.0, 0.0);
        for table in self.tables() {
            let (mut mass, mut sum, mut squares) = (0.0, 0.0, 0.0);
            let anchor = anchor(table, s);
            for entry in table {
                let share = entry.count * (s * (entry.value - anchor)).exp();
                mass += share;
                sum += share * entry.value;
                squares += share * entry.value * entry.value;
            }
            let mean = sum / mass;
            first += mean;
            second += squares / mass - mean * mean;
        }
        (first, second)
    }

    /// Tilt at which the mean of the sum is `target`; 0 if `target` is above the plain mean.
    fn saddlepoint(&self, target: f64) -> f64 {
        let width = |table: &[Entry]| table.last().map_or(0.0, |last| last.value - table[0].value);
        let widest = self.tables().map(width).fold(f64::MIN_POSITIVE, f64::max);
        let least = -STEEPEST / widest;
        let mut s = 0.0;
        for _ in 0..STEPS {
            let (first, second) = self.derivatives(s);
            if second <= 0.0 || (first - target).abs() <= 0.01 * second.sqrt() {
                break;
            }
            s = (s - (first - target) / second).clamp(least, 0.0);
        }
        s
    }

    /// Sets the probability of every entry at tilt `s` in integer parts, so that the weights are exactly those of the
    /// draws.
    fn tilt(&mut self, s: f64) {
        for (start, end) in self.spans.clone() {
            let table = &mut self.entries[start..end];
            let anchor = anchor(table, s);
            let share = |entry: &Entry| entry.count * (s * (entry.value - anchor)).exp();
            let mass: f64 = table.iter().map(share).sum();
            let labels: f64 = table.iter().map(|entry| entry.count).sum();
            let mut drawn = 0_u64;
            let last = table.len() - 1;
            for (place, entry) in table.iter_mut().enumerate() {
                let left = (last - place) as u64;
                let wanted = parts(share(entry) / mass);
                let given = if place == last { WHOLE - drawn } else { wanted.clamp(1, WHOLE - drawn - left) };
                drawn += given;
                entry.below = drawn;
                entry.log_weight = (entry.count / labels).ln() - (number(given) / number(WHOLE)).ln();
            }
        }
    }

    fn weight_of(&self, values: &[f64]) -> f64 {
        let each = self.tables().zip(values);
        each.map(|(table, value)| {
            let place = table.partition_point(|entry| entry.value < *value);
            table.get(place).map_or(0.0, |entry| entry.log_weight)
        })
        .sum()
    }

    /// Draws a relabelling from each stream, case by case, so that each table is read from memory once.
    pub(super) fn draw(&self, streams: impl Iterator<Item = Stream>) -> Vec<Drawn> {
        let mut streams: Vec<Stream> = streams.collect();
        let mut all: Vec<Drawn> = streams.iter().map(|_| Drawn::default()).collect();
        for (table, guide) in self.tables().zip(&self.guides) {
            for (stream, drawn) in streams.iter_mut().zip(&mut all) {
                let bits = stream.next_u32();
                let mut place = usize::from(guide[(bits >> (32 - GUIDE_BITS)) as usize]);
                // The entry is nearly always the first or second, which no branch predictor can guess; so no branch.
                place += usize::from(table[place].below <= u64::from(bits));
                // The last entry ends at 2^32, above every draw, so the search ends.
                while table[place].below <= u64::from(bits) {
                    place += 1;
                }
                let entry = &table[place];
                drawn.sum += entry.value;
                drawn.squares += entry.value * entry.value;
                drawn.log_weight += entry.log_weight;
            }
        }
        all
    }
}

/// For each value of a draw's leading bits, the first possible entry.
fn guide(table: &[Entry]) -> [u16; 1 << GUIDE_BITS] {
    let mut guide = [0; 1 << GUIDE_BITS];
    let mut place = 0;
    for (lead, first) in (0_u64..).zip(&mut guide) {
        let least = lead << (32 - GUIDE_BITS);
        place += table[place..].iter().take_while(|entry| entry.below <= least).count();
        *first = u16::try_from(place).expect("a table has at most some hundreds of entries");
    }
    guide
}

/// Largest exponent, subtracted so that nothing overflows.
fn anchor(table: &[Entry], s: f64) -> f64 {
    let end = if s < 0.0 { table.first() } else { table.last() };
    end.map_or(0.0, |entry| entry.value)
}

/// A probability in parts of [`WHOLE`], rounded down.
fn parts(share: f64) -> u64 {
    // Two halves of 16 bits, each exact as a 32 bit number.
    let high = (share.clamp(0.0, 1.0) * 65_536.0).floor();
    let low = ((share * 65_536.0 - high) * 65_536.0).clamp(0.0, 65_535.0).floor();
    crate::cast::round(high) * 65_536 + crate::cast::round(low)
}

fn number(parts: u64) -> f64 {
    let half = |part: u64| float(usize::try_from(part).unwrap_or(0));
    half(parts / 65_536) * 65_536.0 + half(parts % 65_536)
}
