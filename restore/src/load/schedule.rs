//! In which order tasks run: what others wait for comes first, nothing starts before what it needs, and no two tasks run
//! at once whose locks on a table exclude each other. Pure: whoever runs the tasks asks for the next one.
//!
//! PostgreSQL would keep order by itself, but a session that waits for a lock is a connection that does nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

/// A lock on a table, as PostgreSQL knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// ACCESS SHARE: reading.
    Read,
    /// SHARE: building an index.
    Index,
    /// SHARE UPDATE EXCLUSIVE: ANALYZE.
    Analyze,
    /// SHARE ROW EXCLUSIVE: a foreign key, on both tables.
    ForeignKey,
    /// ACCESS EXCLUSIVE: a primary key, a unique or exclusion constraint. Loading counts as well.
    Alone,
}

impl Lock {
    fn excludes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Alone, _) | (_, Self::Alone) => true,
            (Self::Read, _) | (_, Self::Read) | (Self::Index, Self::Index) => false,
            _ => true,
        }
    }
}

/// What the order depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Tasks that must have succeeded before; each has a lower number than this one.
    pub needs: Vec<usize>,
    /// Locks on tables, by any number that stands for the table.
    pub locks: Vec<(usize, Lock)>,
    /// How long it takes, in any unit.
    pub cost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    /// Something that it needs has failed.
    Skipped,
}

/// Which tasks have run, and which may.
#[derive(Debug)]
pub struct Schedule {
    shapes: Vec<Shape>,
    state: Vec<State>,
    /// How many needs of each task have not been met.
    missing: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    /// The time from the start of each task to the end of all that waits for it.
    path: Vec<u64>,
    /// Tasks whose needs are met, the longest path first.
    ready: BTreeSet<(Reverse<u64>, usize)>,
    held: HashMap<usize, Vec<Lock>>,
    left: usize,
}

impl Schedule {
    /// Nothing has run yet.
    pub fn new(shapes: Vec<Shape>) -> Self {
        let count = shapes.len();
        let mut dependents = vec![Vec::new(); count];
        let mut path: Vec<u64> = shapes.iter().map(|shape| shape.cost).collect();
        for (task, shape) in shapes.iter().enumerate().rev() {
            for &need in &shape.needs {
                assert!(need < task, "a task needs only earlier ones");
                dependents[need].push(task);
                path[need] = path[need].max(shapes[need].cost.saturating_add(path[task]));
            }
        }
        let missing: Vec<usize> = shapes.iter().map(|shape| shape.needs.len()).collect();
        let ready =
            (0..count).filter(|task| missing[*task] == 0).map(|task| (Reverse(path[task]), task)).collect();
        Self {
            state: vec![State::Waiting; count],
            missing,
            dependents,
            path,
            ready,
            held: HashMap::new(),
            left: count,
            shapes,
        }
    }

    /// Starts the most urgent task that may run now. When nothing runs, there is one, unless all is finished.
    pub fn start(&mut self) -> Option<usize> {
        let is_free = |task: usize| {
            self.shapes[task].locks.iter().all(|(table, lock)| {
                self.held.get(table).is_none_or(|held| !held.iter().any(|other| lock.excludes(*other)))
            })
        };
        let next = self.ready.iter().copied().find(|(_, task)| is_free(*task))?;
        self.ready.remove(&next);
        let (_, task) = next;
        self.state[task] = State::Running;
        for (table, lock) in &self.shapes[task].locks {
            self.held.entry(*table).or_default().push(*lock);
        }
        Some(task)
    }

    /// A task has ended. What needs one that failed is skipped.
    pub fn finish(&mut self, task: usize, succeeded: bool) {
        debug_assert_eq!(self.state[task], State::Running);
        for (table, lock) in &self.shapes[task].locks {
            if let Some(held) = self.held.get_mut(table)
                && let Some(at) = held.iter().position(|other| other == lock)
            {
                held.swap_remove(at);
            }
        }
        self.left -= 1;
        self.state[task] = State::Done;
        let mut failed = if succeeded { Vec::new() } else { vec![task] };
        while let Some(task) = failed.pop() {
            for dependent in self.dependents[task].clone() {
                if self.state[dependent] == State::Waiting {
                    self.state[dependent] = State::Skipped;
                    self.left -= 1;
                    failed.push(dependent);
                }
            }
        }
        if succeeded {
            for dependent in &self.dependents[task] {
                self.missing[*dependent] -= 1;
                if self.missing[*dependent] == 0 && self.state[*dependent] == State::Waiting {
                    self.ready.insert((Reverse(self.path[*dependent]), *dependent));
                }
            }
        }
    }

    /// Whether every task has run or was skipped.
    pub fn is_finished(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: [Lock; 5] = [Lock::Read, Lock::Index, Lock::Analyze, Lock::ForeignKey, Lock::Alone];

    /// Numbers that look random and are the same in every run.
    fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below.max(1) as u64).unwrap()
        }
    }

    fn random_tasks(seed: u64) -> Vec<Shape> {
        let mut next = numbers(seed);
        (0..next(40))
            .map(|task| {
                let mut needs: Vec<usize> =
                    (0..next(4)).filter(|_| task > 0).map(|_| next(task.max(1))).collect();
                needs.sort_unstable();
                needs.dedup();
                let locks = (0..next(3)).map(|_| (next(5), LOCKS[next(5)])).collect();
                Shape { needs, locks, cost: next(100) as u64 }
            })
            .collect()
    }

    #[test]
    fn whatever_the_tasks_order_and_locks_are_respected_and_everything_ends() {
        for seed in 1..=500 {
            let shapes = random_tasks(seed);
            let mut next = numbers(seed + 1_000_000);
            let workers = 1 + next(4);
            let may_fail = seed % 2 == 0;
            let mut schedule = Schedule::new(shapes.clone());
            let (mut running, mut succeeded, mut failed) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
            while !schedule.is_finished() {
                while running.len() < workers {
                    let Some(task) = schedule.start() else { break };
                    assert!(
                        !succeeded.contains(&task) && !running.contains(&task),
                        "seed {seed}: {task} twice"
                    );
                    assert!(shapes[task].needs.iter().all(|need| succeeded.contains(need)), "seed {seed}");
                    for other in &running {
                        let other: &Shape = &shapes[*other];
                        let clash = shapes[task].locks.iter().any(|(table, lock)| {
                            other.locks.iter().any(|(one, held)| one == table && lock.excludes(*held))
                        });
                        assert!(!clash, "seed {seed}: {task}");
                    }
                    running.push(task);
                }
                assert!(!running.is_empty(), "seed {seed}: stuck with {} left", schedule.left);
                let task = running.swap_remove(next(running.len()));
                let is_good = !(may_fail && next(5) == 0);
                schedule.finish(task, is_good);
                if is_good {
                    succeeded.insert(task)
                } else {
                    failed.insert(task)
                };
            }
            assert!(running.is_empty(), "seed {seed}");
            // What neither succeeded nor failed needs, over however many steps, something that failed.
            for (task, shape) in shapes.iter().enumerate() {
                let has_run = succeeded.contains(&task) || failed.contains(&task);
                let may_run = shape.needs.iter().all(|need| succeeded.contains(need));
                assert_eq!(has_run, may_run, "seed {seed}: {task}");
            }
        }
    }

    #[test]
    fn the_longest_way_to_the_end_comes_first() {
        let task = |needs: &[usize], cost| Shape { needs: needs.to_vec(), locks: Vec::new(), cost };
        // 1 is short, but 2 waits for it.
        let mut schedule = Schedule::new(vec![task(&[], 50), task(&[], 10), task(&[1], 60)]);
        assert_eq!(schedule.start(), Some(1));
        assert_eq!(schedule.start(), Some(0));
        assert_eq!(schedule.start(), None);
        schedule.finish(1, true);
        assert_eq!(schedule.start(), Some(2));
    }

    #[test]
    fn indexes_of_one_table_are_built_side_by_side_and_a_primary_key_alone() {
        let mut schedule = Schedule::new(
            [Lock::Index, Lock::Index, Lock::Read, Lock::Alone]
                .iter()
                .map(|lock| Shape { needs: Vec::new(), locks: vec![(7, *lock)], cost: 1 })
                .collect(),
        );
        assert_eq!([schedule.start(), schedule.start(), schedule.start()], [Some(0), Some(1), Some(2)]);
        assert_eq!(schedule.start(), None);
        schedule.finish(0, true);
        schedule.finish(1, true);
        assert_eq!(schedule.start(), None);
        schedule.finish(2, true);
        assert_eq!(schedule.start(), Some(3));
    }
}
