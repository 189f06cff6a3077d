//! Takes turns: tests of one module run beside each other, tests of different modules do not.
//!
//! Many tests measure times and rates, or load both processors on purpose. As long as each file was a program of its own,
//! cargo ran one file after the other. A module's turn begins when one of its tests first starts a cluster or a program,
//! and lasts until no test that did so runs any more. So the modules of a binary are as undisturbed as separate programs.

use std::cell::RefCell;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// The module whose turn it is, and how many of its tests run.
struct State {
    module: String,
    running: usize,
}

static STATE: Mutex<State> = Mutex::new(State {
    module: String::new(),
    running: 0,
});
static OVER: Condvar = Condvar::new();

thread_local! {
    /// Set on a test's thread from its first server on; dropped when the thread, and so the test, ends.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// Waits until it is the turn of the calling test's module; the turn is the test's until it ends.
///
/// Threads that a test starts have no name, or a runtime's. They belong to a test that has its turn.
/// It must not be called under a lock that other modules take: the module whose turn it is may wait for that lock.
pub(crate) fn take() {
    let current = thread::current();
    // The name of a test's thread is the test's path.
    let Some((module, _)) = current.name().and_then(|name| name.split_once("::")) else {
        return;
    };
    TURN.with_borrow_mut(|turn| {
        turn.get_or_insert_with(|| Turn::of(module));
    });
}

struct Turn;

impl Turn {
    fn of(module: &str) -> Self {
        let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = |state: &mut State| state.running > 0 && state.module != module;
        let mut state = OVER
            .wait_while(state, is_taken)
            .unwrap_or_else(PoisonError::into_inner);
        module.clone_into(&mut state.module);
        state.running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        state.running -= 1;
        OVER.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::{Turn, thread};

    #[test]
    fn modules_take_turns_and_tests_of_one_module_do_not() {
        static FIRST: AtomicUsize = AtomicUsize::new(0);
        static SECOND: AtomicUsize = AtomicUsize::new(0);
        let run = |module, own: &'static AtomicUsize, other: &'static AtomicUsize| {
            let _turn = Turn::of(module);
            own.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            let beside = (own.load(Ordering::SeqCst), other.load(Ordering::SeqCst));
            thread::sleep(Duration::from_millis(20));
            own.fetch_sub(1, Ordering::SeqCst);
            beside
        };
        let seen: Vec<_> = thread::scope(|scope| {
            let tests: Vec<_> = (0..16)
                .map(|number| match number % 2 {
                    0 => scope.spawn(move || run("first", &FIRST, &SECOND)),
                    _ => scope.spawn(move || run("second", &SECOND, &FIRST)),
                })
                .collect();
            tests.into_iter().map(|test| test.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|(_, others)| *others == 0), "{seen:?}");
        assert!(seen.iter().any(|(own, _)| *own > 1), "{seen:?}");
    }
}
