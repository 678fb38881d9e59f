//! What comes between a deadline and a task that runs again, measured while it happens, so that it can be started
//! that much earlier.

/// The last few measurements of one kind.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ns: [u64; Self::KEPT],
    count: usize,
}

impl Recent {
    const KEPT: usize = 4;
    /// More than this is no property of the machine but an accident: 2 ms.
    const MOST_NS: u64 = 2_000_000;

    pub(super) fn add(&mut self, ns: u64) {
        self.ns[self.count % Self::KEPT] = ns.min(Self::MOST_NS);
        self.count += 1;
    }

    fn known(&self) -> impl Iterator<Item = u64> {
        self.ns[..self.count.min(Self::KEPT)].iter().copied()
    }

    /// The least of them; 0 before anything is known.
    pub(super) fn least(&self) -> u64 {
        self.known().min().unwrap_or(0)
    }

    /// The most of them; 0 before anything is known.
    pub(super) fn most(&self) -> u64 {
        self.known().max().unwrap_or(0)
    }
}

/// The ways from an answer to the task that waits for it: a system call, a wake-up and the scheduler.
///
/// Microseconds on hardware, above a millisecond on an emulated machine whose processors are idle.
#[derive(Debug)]
pub(super) struct Ways {
    recent: Recent,
    pages: Box<[Page]>,
}

/// What is remembered of a page.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// When the last task here was answered, CLOCK_MONOTONIC ns; 0 when that has been used.
    answered_ns: u64,
    /// What it had asked for.
    deadline_ns: u64,
}

impl Ways {
    pub(super) fn new(pages: usize) -> Self {
        Self { recent: Recent::default(), pages: vec![Page::default(); pages].into_boxed_slice() }
    }

    /// The task on `page` is about to be answered.
    pub(super) fn answered(&mut self, page: u64, now_ns: u64) {
        if let Some(page) = self.page(page) {
            page.answered_ns = now_ns;
        }
    }

    /// The task that was answered on `page` last ran again at `woke_ns`.
    pub(super) fn learn(&mut self, page: u64, woke_ns: u64) {
        let Some(page) = self.page(page) else { return };
        let answered_ns = std::mem::take(&mut page.answered_ns);
        if answered_ns != 0 && woke_ns > answered_ns {
            self.recent.add(woke_ns - answered_ns);
        }
    }

    /// How much before its deadline the task on `page` should be answered. Three quarters of what the quickest of the
    /// last ones needed: it shall not wake too early. One that did, and comes again for the same deadline, gets none.
    pub(super) fn head_start(&mut self, page: u64, deadline_ns: u64) -> u64 {
        let head_start = self.recent.least() / 4 * 3;
        match self.page(page) {
            Some(page) if page.deadline_ns != deadline_ns => {
                page.deadline_ns = deadline_ns;
                head_start
            }
            _ => 0,
        }
    }

    fn page(&mut self, page: u64) -> Option<&mut Page> {
        self.pages.get_mut(usize::try_from(page).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1000;

    #[test]
    fn the_last_four_and_no_accident() {
        let mut recent = Recent::default();
        assert_eq!((recent.least(), recent.most()), (0, 0));
        for ns in [50, 90, 70] {
            recent.add(ns * US);
        }
        assert_eq!((recent.least(), recent.most()), (50 * US, 90 * US));
        for _ in 0..4 {
            recent.add(80 * US);
        }
        assert_eq!((recent.least(), recent.most()), (80 * US, 80 * US), "the machine may change");
        recent.add(u64::MAX);
        assert_eq!(recent.most(), Recent::MOST_NS, "a stopped machine is not a slow one");
    }

    #[test]
    fn a_task_that_woke_too_early_waits_for_its_deadline() {
        let mut ways = Ways::new(2);
        ways.answered(1, 1000 * US);
        ways.learn(1, 1800 * US);
        // Nobody was answered since: what the page says is old.
        ways.learn(1, 9000 * US);
        assert_eq!(ways.head_start(1, 77), 600 * US);
        assert_eq!(ways.head_start(1, 77), 0);
        assert_eq!(ways.head_start(0, 77), 600 * US, "another task");
        assert_eq!(ways.head_start(2, 77), 0, "no such page");
    }
}
