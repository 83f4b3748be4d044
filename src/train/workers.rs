//! Threads that share a list of tasks, each with an arena of its own.

use crate::engine::Buffer;
use crate::error::HostError;
use std::format;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

/// A pool of threads and their arenas.
#[derive(Debug)]
pub struct Workers {
    pool: rayon::ThreadPool,
    arenas: Vec<Buffer>,
}

impl Workers {
    /// `threads` workers; as many as there are cores for 0.
    ///
    /// # Errors
    /// If the operating system starts no more threads.
    pub fn new(threads: usize) -> Result<Self, HostError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| {
            HostError::new("train.threads", format!("{threads} threads cannot be started: {e}"), "take fewer")
        })?;
        let arenas = vec![Buffer::default(); pool.current_num_threads()];
        Ok(Self { pool, arenas })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.arenas.len()
    }

    /// Makes every arena at least `bytes` long.
    pub(super) fn reserve(&mut self, bytes: usize) {
        for arena in &mut self.arenas {
            if arena.bytes().len() < bytes {
                *arena = Buffer::zeroed(bytes);
            }
        }
    }

    /// An arena, for work that is done once.
    pub(super) fn arena(&mut self) -> &mut [u8] {
        self.arenas[0].bytes_mut()
    }

    /// Calls `work` on each task, with an arena and the task's number. Which thread takes which task
    /// is left open: the result of a task must not depend on what its arena held before.
    ///
    /// # Errors
    /// The error of the task with the lowest number.
    pub(super) fn each<T: Send>(
        &mut self,
        tasks: &mut [T],
        work: impl Fn(&mut [u8], usize, &mut T) -> Result<(), HostError> + Sync,
    ) -> Result<(), HostError> {
        let queue = Mutex::new(tasks.iter_mut().enumerate());
        let first_error = Mutex::new(None::<(usize, HostError)>);
        let next = || queue.lock().expect("no task panics while it is taken").next();
        self.pool.scope(|scope| {
            for arena in &mut self.arenas {
                scope.spawn(|_| {
                    while let Some((i, task)) = next() {
                        if let Err(error) = work(arena.bytes_mut(), i, task) {
                            let mut first = first_error.lock().expect("nothing panics while it is held");
                            if first.as_ref().is_none_or(|(at, _)| i < *at) {
                                *first = Some((i, error));
                            }
                        }
                    }
                });
            }
        });
        match first_error.into_inner().expect("nothing panics while it is held") {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Runs `work` where rayon's parallel iterators use these threads.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_and_the_first_error_is_given() {
        for threads in [1, 2, 3] {
            let mut workers = Workers::new(threads).unwrap();
            assert_eq!(workers.threads(), threads);
            workers.reserve(64);
            let mut tasks = vec![0usize; 100];
            workers
                .each(&mut tasks, |arena, i, task| {
                    assert_eq!(arena.len(), 64);
                    *task += i;
                    Ok(())
                })
                .unwrap();
            assert!(tasks.iter().enumerate().all(|(i, &t)| t == i));
            let error =
                workers.each(&mut tasks, |_, i, _| if i % 7 == 3 { Err(HostError::new(i, "", "")) } else { Ok(()) });
            assert_eq!(error.unwrap_err().place, "3");
        }
    }
}
