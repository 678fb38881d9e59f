//! What a receiver saw, datagram by datagram.

use anyhow::{Context as _, ensure};

use crate::victim::report::{Counted, Sent};

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrived.
    Lost,
    /// It arrived twice.
    Twice,
    /// It arrived later than 5 ms.
    Late,
    /// It arrived earlier than that.
    OnTime,
    /// It arrived marked: congestion experienced.
    Marked,
}

impl Fate {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Twice => "arrived twice",
            Self::Late => "late",
            Self::OnTime => "on time",
            Self::Marked => "marked",
        }
    }
}

/// Later than this is late: 5 ms.
const LATE_NS: u64 = 5_000_000;
/// Datagrams that arrive further apart than this are of different groups: 4 ms.
const APART_NS: u64 = 4_000_000;

/// One datagram.
#[derive(Clone, Copy, Debug, Default)]
struct Datagram {
    copies: u64,
    /// Of the first copy.
    delay_ns: u64,
    is_marked: bool,
}

/// All of them, by number, and when each copy arrived.
pub struct Sequence {
    datagrams: Vec<Datagram>,
    arrivals_ns: Vec<u64>,
}

impl Sequence {
    /// Of what was sent and what was counted.
    ///
    /// # Errors
    /// When the two do not fit together.
    pub fn new(sent: &Sent, counted: &Counted) -> anyhow::Result<Self> {
        ensure!(counted.numbers.len() == counted.delays_ns.len(), "numbers were not asked for");
        let mut datagrams = vec![Datagram::default(); sent.stamps_ns.len()];
        let mut arrivals_ns = Vec::new();
        for (number, delay_ns) in counted.numbers.iter().zip(&counted.delays_ns) {
            let index = usize::try_from(*number)?;
            let datagram = datagrams.get_mut(index).with_context(|| format!("nobody sent {number}"))?;
            if datagram.copies == 0 {
                datagram.delay_ns = *delay_ns;
            }
            datagram.copies += 1;
            arrivals_ns.push(sent.stamps_ns[index] + delay_ns);
        }
        for number in &counted.marked {
            datagrams.get_mut(usize::try_from(*number)?).context("a mark of nothing")?.is_marked = true;
        }
        arrivals_ns.sort_unstable();
        Ok(Self { datagrams, arrivals_ns })
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.datagrams.len() as u64
    }

    /// One-way delays of what arrived, of one datagram in so many.
    pub fn delays_ns(&self, one_in: usize) -> Vec<u64> {
        let all = self.datagrams.iter().step_by(one_in);
        all.filter(|datagram| datagram.copies != 0).map(|datagram| datagram.delay_ns).collect()
    }

    /// Delays of those that are late.
    pub fn late_ns(&self) -> Vec<u64> {
        self.delays_ns(1).into_iter().filter(|delay| *delay > LATE_NS).collect()
    }

    fn has(datagram: &Datagram, fate: Fate) -> bool {
        let arrived = datagram.copies != 0;
        match fate {
            Fate::Lost => !arrived,
            Fate::Twice => datagram.copies > 1,
            Fate::Late => arrived && datagram.delay_ns > LATE_NS,
            Fate::OnTime => arrived && datagram.delay_ns <= LATE_NS,
            Fate::Marked => datagram.is_marked,
        }
    }

    /// Of each in turn, whether it had this fate.
    fn fates(&self, fate: Fate) -> Vec<bool> {
        self.datagrams.iter().map(|datagram| Self::has(datagram, fate)).collect()
    }

    /// How many had it.
    pub fn count(&self, fate: Fate) -> u64 {
        self.fates(fate).into_iter().filter(|had| *had).count() as u64
    }

    /// Of what was sent right after one that had this fate (or had it not), how many had it, and how many that were: of one
    /// datagram in so many.
    pub fn after(&self, fate: Fate, first_had: bool, one_in: usize) -> (u64, u64) {
        let fates = self.fates(fate);
        let seconds = fates.windows(2).step_by(one_in).filter(|pair| pair[0] == first_had);
        seconds.fold((0, 0), |(hits, trials), pair| (hits + u64::from(pair[1]), trials + 1))
    }

    /// How many datagrams it is from one with this fate to the next.
    pub fn distances(&self, fate: Fate) -> Vec<u64> {
        let places: Vec<u64> =
            (0..).zip(self.fates(fate)).filter(|(_, had)| *had).map(|(place, _)| place).collect();
        places.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Groups of datagrams that arrived together: when each began, and of how many it is. The last one may have been cut off.
    pub fn groups(&self) -> Vec<(u64, u64)> {
        let groups = self.arrivals_ns.chunk_by(|a, b| b - a < APART_NS);
        let mut groups: Vec<_> = groups.map(|group| (group[0], group.len() as u64)).collect();
        groups.pop();
        groups
    }

    /// Spearman's rank correlation of each delay with the one before.
    pub fn succession(&self) -> f64 {
        let delays = self.delays_ns(1);
        let ranks = |delays: &[u64]| {
            let mut order: Vec<usize> = (0..delays.len()).collect();
            order.sort_by_key(|index| delays[*index]);
            let mut ranks = vec![0.0; delays.len()];
            order.iter().enumerate().for_each(|(rank, index)| ranks[*index] = rank as f64);
            ranks
        };
        let Some(last) = delays.len().checked_sub(1) else { return 0.0 };
        let (before, after) = (ranks(&delays[..last]), ranks(&delays[1..]));
        let n = last as f64;
        let squares: f64 = before.iter().zip(&after).map(|(a, b)| (a - b).powi(2)).sum();
        1.0 - 6.0 * squares / (n * (n * n - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten datagrams a millisecond apart: 3 and 4 lost, 6 twice, 7 marked, 8 and 9 late.
    fn sequence() -> Sequence {
        let sent = Sent { stamps_ns: (0..10).map(|n| n * 1_000_000).collect(), ..Sent::default() };
        let arrived = [0, 1, 2, 5, 6, 6, 7, 8, 9];
        let counted = Counted {
            numbers: arrived.to_vec(),
            delays_ns: arrived.iter().map(|n| if *n > 7 { 20_000_000 + n } else { 1000 + n }).collect(),
            marked: vec![7],
            ..Counted::default()
        };
        Sequence::new(&sent, &counted).unwrap()
    }

    #[test]
    fn fates_are_counted() {
        let sequence = sequence();
        let counts = [Fate::Lost, Fate::Twice, Fate::Late, Fate::OnTime, Fate::Marked]
            .map(|fate| sequence.count(fate));
        assert_eq!(counts, [2, 1, 2, 6, 1]);
        assert_eq!(sequence.after(Fate::Lost, true, 1), (1, 2));
        assert_eq!(sequence.after(Fate::Lost, false, 1), (1, 7));
        assert_eq!(sequence.distances(Fate::OnTime), [1, 1, 3, 1, 1]);
        assert_eq!(sequence.late_ns(), [20_000_008, 20_000_009]);
        assert_eq!(sequence.delays_ns(5), [1000, 1005]);
    }

    #[test]
    fn groups_are_told_apart_by_pauses() {
        // The last group, which is the late ones, may not be whole.
        assert_eq!(sequence().groups(), [(1000, 7)]);
    }

    #[test]
    fn succession_is_a_rank_correlation() {
        let of = |delays: Vec<u64>| {
            let sent = Sent { stamps_ns: (0..delays.len() as u64).collect(), ..Sent::default() };
            let counted = Counted {
                numbers: (0..delays.len() as u64).collect(),
                delays_ns: delays,
                ..Counted::default()
            };
            Sequence::new(&sent, &counted).unwrap().succession()
        };
        assert!((of((0..100).collect()) - 1.0).abs() < 1e-9);
        assert!((of((0..100).map(|n| if n % 2 == 0 { n } else { 1000 - n }).collect()) + 1.0).abs() < 0.1);
    }
}
