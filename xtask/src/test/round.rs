//! Into which pieces the end-to-end tests of the lanes are cut, and how many of them run at once.

use std::fmt;

use crate::lane::Lane;

/// Which tests, by how they take a busy machine; the words of `fault-e2e --rooms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rooms {
    Patient,
    Timed,
}

impl Rooms {
    const fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Timed => "timed",
        }
    }
}

/// What one VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub lane: Lane,
    /// Of the lane's tests; all of them if there is nothing here.
    rooms: Option<(Rooms, Shard)>,
}

/// The Nth of some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard(usize, usize);

impl Piece {
    /// Arguments of the end-to-end program.
    pub fn args(self) -> Vec<String> {
        let mut args = vec!["--lane".to_owned(), self.lane.name().to_owned()];
        if let Some((rooms, Shard(number, of))) = self.rooms {
            args.extend(["--rooms".to_owned(), rooms.name().to_owned()]);
            args.extend(["--shard".to_owned(), format!("{number}/{of}")]);
        }
        args
    }

    /// About how long it takes by itself, in minutes.
    pub const fn weight(self) -> u32 {
        let whole = match self.lane {
            Lane::Fault => 14,
            Lane::Debian61 => 24,
            Lane::Debian612 => 8,
            Lane::FmodOnly => 18,
        };
        match self.rooms {
            None => whole,
            Some((_, Shard(_, of))) => whole / of as u32,
        }
    }
}

/// "lane fault", "lane fault, timed", "lane debian-6.1, patient 1/2".
impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {}", self.lane)?;
        match self.rooms {
            None => Ok(()),
            Some((rooms, Shard(_, 1))) => write!(f, ", {}", rooms.name()),
            Some((rooms, Shard(number, of))) => write!(f, ", {} {number}/{of}", rooms.name()),
        }
    }
}

/// Pieces that run at the same time, the longest first so that nobody waits for it at the end.
#[derive(Debug)]
pub struct Round {
    pub pieces: Vec<Piece>,
    /// How many at once.
    pub jobs: usize,
}

/// How many VMs run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// When nobody is timed: an emulated machine waits a good deal of its time.
    pub patient: usize,
    /// Each with a processor of its own.
    pub timed: usize,
}

impl Jobs {
    /// As many as somebody asked for.
    pub fn exactly(jobs: usize) -> Self {
        Self { patient: jobs.max(1), timed: jobs.max(1) }
    }
}

/// All tests of `lanes`: those first that do not mind a machine with more to do than it has processors. A few that are named
/// run in one piece for each lane.
pub fn rounds(lanes: &[Lane], named: bool, jobs: Jobs) -> Vec<Round> {
    let of = |rooms: Option<Rooms>, jobs| {
        let mut pieces: Vec<_> = lanes.iter().flat_map(|lane| pieces(*lane, rooms)).collect();
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.weight()));
        Round { pieces, jobs }
    };
    if named {
        return vec![of(None, jobs.timed)];
    }
    vec![of(Some(Rooms::Patient), jobs.patient), of(Some(Rooms::Timed), jobs.timed)]
}

fn pieces(lane: Lane, rooms: Option<Rooms>) -> Vec<Piece> {
    let shards = match (lane, rooms) {
        (_, None) => return vec![Piece { lane, rooms: None }],
        (Lane::Debian61, Some(Rooms::Patient)) => 2,
        (_, Some(_)) => 1,
    };
    let shards = (1..=shards).map(|number| Shard(number, shards));
    shards.map(|shard| Piece { lane, rooms: rooms.map(|rooms| (rooms, shard)) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: Jobs = Jobs { patient: 3, timed: 2 };

    #[test]
    fn every_lane_is_in_every_round() {
        let rounds = rounds(&Lane::ALL, false, JOBS);
        assert_eq!(rounds.iter().map(|round| round.jobs).collect::<Vec<_>>(), [3, 2]);
        for round in &rounds {
            assert!(Lane::ALL.iter().all(|lane| round.pieces.iter().any(|piece| piece.lane == *lane)));
        }
        let names: Vec<_> = rounds[0].pieces.iter().map(ToString::to_string).collect();
        assert!(names.contains(&"lane debian-6.1, patient 2/2".to_owned()), "{names:?}");
        assert_eq!(rounds[1].pieces.len(), Lane::ALL.len());
    }

    #[test]
    fn the_end_to_end_program_knows_its_lane_and_its_part() {
        let rounds = rounds(&[Lane::Debian612], false, JOBS);
        let args = rounds[1].pieces[0].args().join(" ");
        assert_eq!(args, "--lane debian-6.12 --rooms timed --shard 1/1");
    }

    #[test]
    fn a_few_named_tests_need_no_cutting() {
        let rounds = rounds(&[Lane::Fault], true, JOBS);
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds[0].pieces[0].args(), ["--lane", "fault"]);
        assert_eq!(rounds[0].pieces[0].to_string(), "lane fault");
    }
}
