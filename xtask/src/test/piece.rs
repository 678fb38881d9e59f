//! Into which pieces the end-to-end tests of the lanes are cut.

use std::fmt;

use crate::{lane::Lane, vm::Clock};

/// Which tests, by how they take a busy machine; the words of `fault-e2e --rooms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rooms {
    Patient,
    Timed,
}

impl Rooms {
    const ALL: [Self; 2] = [Self::Patient, Self::Timed];

    pub const fn name(self) -> &'static str {
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

    /// What the clocks of its machine count. A test that asserts how late something was must not see how busy the host is; the
    /// others are done in two thirds of the time by the host's clock.
    pub const fn clock(self) -> Clock {
        match (self.lane, self.rooms) {
            // Named ones may be patient, and those were never tried with one processor (see below).
            (_, Some((Rooms::Patient, _))) | (Lane::Debian61, None) => Clock::Host,
            (_, Some((Rooms::Timed, _))) | (Lane::Fault | Lane::Debian612 | Lane::FmodOnly, None) => {
                Clock::Instructions
            }
        }
    }

    /// How many processors its machine has by this clock, if not as many as others.
    pub const fn cpus(self, clock: Clock) -> Option<u32> {
        match (self.lane, self.rooms, clock) {
            // Linux 6.1 waits for its second processor for ever when the clock counts instructions (QEMU 7.2).
            (Lane::Debian61, _, Clock::Instructions)
            // Processors that are emulated in turn wait for each other's answers: a session on one takes an eighth less. These
            // are about packets, and are done on this machine's own kernel and processors, too.
            | (Lane::Debian61, Some((Rooms::Patient, _)), Clock::Host) => Some(1),
            (Lane::Debian61, Some((Rooms::Timed, _)) | None, Clock::Host)
            | (Lane::Fault | Lane::Debian612 | Lane::FmodOnly, _, _) => None,
        }
    }

    /// Whether by this clock it would see how busy the host is, and must not.
    pub const fn minds_company(self, clock: Clock) -> bool {
        matches!((clock, self.rooms), (Clock::Host, Some((Rooms::Timed, _)) | None))
    }

    /// About how long it takes, in minutes.
    const fn weight(self) -> u32 {
        let (patient, timed) = match self.lane {
            Lane::Fault => (13, 20),
            Lane::Debian61 => (21, 7),
            Lane::Debian612 => (8, 2),
            Lane::FmodOnly => (17, 13),
        };
        match self.rooms {
            None => patient + timed,
            Some((Rooms::Patient, Shard(_, of))) => patient / of as u32,
            Some((Rooms::Timed, Shard(_, of))) => timed / of as u32,
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

/// All tests of `lanes`, in the order in which they should begin: the longest first, so that nobody waits for it at the end. A few
/// that are named run in one piece for each lane.
pub fn pieces(lanes: &[Lane], named: bool) -> Vec<Piece> {
    let mut pieces: Vec<_> = if named {
        lanes.iter().map(|lane| Piece { lane: *lane, rooms: None }).collect()
    } else {
        Rooms::ALL.iter().flat_map(|rooms| lanes.iter().flat_map(|lane| shards(*lane, *rooms))).collect()
    };
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.weight()));
    pieces
}

fn shards(lane: Lane, rooms: Rooms) -> impl Iterator<Item = Piece> {
    let of = match (lane, rooms) {
        (Lane::Debian61, Rooms::Patient) | (Lane::Fault, Rooms::Timed) => 2,
        _ => 1,
    };
    (1..=of).map(move |number| Piece { lane, rooms: Some((rooms, Shard(number, of))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_of_every_lane_is_in_one_piece() {
        let pieces = pieces(&Lane::ALL, false);
        for lane in Lane::ALL {
            for rooms in Rooms::ALL {
                let shards: Vec<_> = pieces
                    .iter()
                    .filter(|piece| piece.lane == lane)
                    .filter_map(|piece| piece.rooms.filter(|(of, _)| *of == rooms))
                    .map(|(_, shard)| shard)
                    .collect();
                let of = shards.len();
                assert!(of > 0, "{lane}, {}", rooms.name());
                assert!((1..=of).all(|number| shards.contains(&Shard(number, of))), "{shards:?}");
            }
        }
        let names: Vec<_> = pieces.iter().map(ToString::to_string).collect();
        assert!(names.contains(&"lane debian-6.1, patient 2/2".to_owned()), "{names:?}");
        assert!(pieces.is_sorted_by_key(|piece| std::cmp::Reverse(piece.weight())), "{names:?}");
    }

    #[test]
    fn the_end_to_end_program_knows_its_lane_and_its_part() {
        let pieces = pieces(&[Lane::Debian612], false);
        let args: Vec<_> = pieces.iter().map(|piece| piece.args().join(" ")).collect();
        assert_eq!(
            args,
            [
                "--lane debian-6.12 --rooms patient --shard 1/1",
                "--lane debian-6.12 --rooms timed --shard 1/1"
            ]
        );
    }

    #[test]
    fn who_asserts_how_late_something_was_does_not_see_how_busy_the_host_is() {
        for piece in pieces(&Lane::ALL, false) {
            let timed = piece.args().contains(&"timed".to_owned());
            assert_eq!(timed, piece.clock() == Clock::Instructions, "{piece}");
            assert!(!piece.minds_company(piece.clock()), "{piece}");
            assert_eq!(timed, piece.minds_company(Clock::Host), "{piece}");
        }
    }

    #[test]
    fn a_few_named_tests_need_no_cutting() {
        let pieces = pieces(&[Lane::Fault], true);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].args(), ["--lane", "fault"]);
        assert_eq!(pieces[0].to_string(), "lane fault");
        // It may be any test.
        assert_eq!(pieces[0].clock(), Clock::Instructions);
    }

    #[test]
    fn one_processor_does_for_linux_6_1() {
        for piece in pieces(&Lane::ALL, false) {
            assert_eq!(piece.cpus(piece.clock()), (piece.lane == Lane::Debian61).then_some(1), "{piece}");
        }
        // Whoever is named may want two.
        let named = pieces(&[Lane::Debian61], true)[0];
        assert_eq!(named.cpus(named.clock()), None);
        assert!(named.minds_company(named.clock()), "it runs alone");
    }
}
