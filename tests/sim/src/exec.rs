//! A single-thread executor with virtual time, seeded.
//!
//! Keeps true: the order in which tasks run depends on the seed alone; time passes only when no task
//! can run. Every task belongs to a group and dies with it, at whatever await it stands; tasks of a
//! group that is paused do not run, whatever time passes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};

use model::Random;
use mx_base::{BoxFuture, Duration, Instant, Timestamp};
use parking_lot::Mutex;

/// Tasks that live and die together: those of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group(pub u32);

/// The wall clock of every simulated node starts here (seconds since 1970).
const WALL_START: i64 = 1_700_000_000;

/// Runs tasks. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    watcher: OnceLock<Watcher>,
}

struct State {
    now: Instant,
    random: Random,
    tasks: BTreeMap<u64, Task>,
    ready: Vec<u64>,
    timers: BTreeMap<(Instant, u64), Waker>,
    /// Nothing of these groups runs any more.
    dead: BTreeSet<Group>,
    /// Tasks that would run, of groups that do not run for now.
    paused: BTreeMap<Group, Vec<u64>>,
    /// What happens behind so many more polls of a group.
    alarms: BTreeMap<Group, (u64, Alarm)>,
    next_id: u64,
    /// Of every choice made: equal for equal seeds.
    trace: u64,
    polls: u64,
}

/// Told of every group of which a task was polled, behind the poll.
type Watcher = Box<dyn Fn(Group) + Send + Sync>;

/// What happens behind a number of polls.
type Alarm = Box<dyn FnOnce() + Send>;

struct Task {
    group: Group,
    /// `None` while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    /// It stands among those that are ready.
    is_ready: bool,
}

thread_local! {
    static RUNNING: Cell<(Instant, Group)> = const { Cell::new((Instant(0), Group(0))) };
    static COLUMNS: RefCell<BTreeMap<Group, u16>> = const { RefCell::new(BTreeMap::new()) };
}

/// What this group does is shown in this column of a log, from 1.
pub fn show_in_column(group: Group, column: u16) {
    COLUMNS.with_borrow_mut(|columns| columns.insert(group, column));
}

/// The column of whatever is being polled on this thread; 0 for the world.
pub fn running_column() -> u16 {
    COLUMNS.with_borrow(|columns| columns.get(&RUNNING.get().1).copied().unwrap_or(0))
}

/// Virtual time, and whose task is being polled on this thread; for logs.
pub fn running() -> (Instant, Group) {
    RUNNING.get()
}

struct TaskWaker {
    task: u64,
    inner: Weak<Inner>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(inner) = self.inner.upgrade() {
            let mut state = inner.state.lock();
            state.wake(self.task);
        }
    }
}

/// Why [`Executor::run`] came back without a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Nothing can run any more: the task waits for something that will not happen.
    Idle,
    /// Virtual time is up.
    Late,
}

impl State {
    fn due_alarm(&mut self, group: Group) -> Option<Alarm> {
        let (left, _) = self.alarms.get_mut(&group)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.alarms.remove(&group).map(|(_, act)| act)
    }

    fn wake(&mut self, id: u64) {
        if let Some(task) = self.tasks.get_mut(&id)
            && !std::mem::replace(&mut task.is_ready, true)
        {
            match self.paused.get_mut(&task.group) {
                Some(parked) => parked.push(id),
                None => self.ready.push(id),
            }
        }
    }
}

impl Executor {
    pub fn new(seed: u64) -> Executor {
        Executor(Arc::new(Inner {
            state: Mutex::new(State {
                now: Instant(1_000_000_000),
                random: Random::new(seed),
                tasks: BTreeMap::new(),
                ready: Vec::new(),
                timers: BTreeMap::new(),
                dead: BTreeSet::new(),
                paused: BTreeMap::new(),
                alarms: BTreeMap::new(),
                next_id: 0,
                trace: seed,
                polls: 0,
            }),
            watcher: OnceLock::new(),
        }))
    }

    pub fn now(&self) -> Instant {
        self.0.state.lock().now
    }

    /// The wall clock: virtual time, counted from a fixed date.
    pub fn wall_time(&self) -> Timestamp {
        let now = self.now().0;
        let seconds = WALL_START + i64::try_from(now / 1_000_000_000).expect("a short run");
        let nanos = u32::try_from(now % 1_000_000_000).expect("below a second");
        Timestamp { seconds, nanos }
    }

    /// `watcher` looks at what has changed behind every poll, from now on, and changes nothing. There
    /// is one.
    pub fn watch(&self, watcher: impl Fn(Group) + Send + Sync + 'static) {
        assert!(self.0.watcher.set(Box::new(watcher)).is_ok(), "one watches");
    }

    /// A draw of the run's own sequence.
    pub fn draw<T>(&self, f: impl FnOnce(&mut Random) -> T) -> T {
        f(&mut self.0.state.lock().random)
    }

    /// Mixes something observed into the trace.
    pub fn note(&self, value: u64) {
        let mut state = self.0.state.lock();
        state.trace = Random::new(state.trace ^ value).next_u64();
    }

    /// A number for everything that happened: equal for equal seeds.
    pub fn trace(&self) -> u64 {
        self.0.state.lock().trace
    }

    /// Tasks polled so far.
    pub fn polls(&self) -> u64 {
        self.0.state.lock().polls
    }

    pub fn spawn(&self, group: Group, future: impl Future<Output = ()> + Send + 'static) {
        let future: BoxFuture<'static, ()> = Box::pin(future);
        let mut state = self.0.state.lock();
        if state.dead.contains(&group) {
            drop(state);
            return drop(future);
        }
        let id = state.next_id;
        state.next_id += 1;
        let waker = Waker::from(Arc::new(TaskWaker { task: id, inner: Arc::downgrade(&self.0) }));
        state.tasks.insert(id, Task { group, future: Some(future), waker, is_ready: false });
        state.wake(id);
    }

    /// Ends all tasks of a group where they stand; none of it ever runs again.
    pub fn kill(&self, group: Group) {
        let dropped: Vec<Task> = {
            let mut state = self.0.state.lock();
            state.dead.insert(group);
            state.paused.remove(&group);
            let ids: BTreeSet<u64> =
                state.tasks.iter().filter(|(_, t)| t.group == group).map(|(id, _)| *id).collect();
            state.ready.retain(|id| !ids.contains(id));
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        drop(dropped);
    }

    /// The tasks of a group do not run until [`Executor::resume`].
    pub fn pause(&self, group: Group) {
        let state = &mut *self.0.state.lock();
        if state.dead.contains(&group) || state.paused.contains_key(&group) {
            return;
        }
        let tasks = &state.tasks;
        let (parked, ready) =
            state.ready.iter().partition(|id| tasks.get(id).is_some_and(|t| t.group == group));
        state.ready = ready;
        state.paused.insert(group, parked);
    }

    pub fn resume(&self, group: Group) {
        let mut state = self.0.state.lock();
        if let Some(parked) = state.paused.remove(&group) {
            state.ready.extend(parked);
        }
    }

    /// `act` is called behind the `polls`th poll of the group from now on: between two steps of
    /// its own, wherever that is. A later call takes the place of an earlier one.
    pub fn after_polls(&self, group: Group, polls: u64, act: impl FnOnce() + Send + 'static) {
        self.0.state.lock().alarms.insert(group, (polls.max(1), Box::new(act)));
    }

    /// What [`Executor::after_polls`] was to call and has not yet will not be called.
    pub fn disarm(&self) {
        self.0.state.lock().alarms.clear();
    }

    pub fn is_paused(&self, group: Group) -> bool {
        self.0.state.lock().paused.contains_key(&group)
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep { exec: self.clone(), until: self.now() + duration, registered: false }
    }

    /// Runs until `future` is done.
    ///
    /// # Errors
    /// [`Stopped`] when it cannot be, or not before `limit`.
    pub fn run<T: Send + 'static>(
        &self,
        group: Group,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stopped> {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        self.spawn(group, async move {
            let value = future.await;
            *place.lock() = Some(value);
        });
        let end = self.now() + limit;
        loop {
            if let Some(value) = result.lock().take() {
                return Ok(value);
            }
            if !self.step(end)? {
                return Err(Stopped::Idle);
            }
        }
    }

    /// Runs everything that can run up to `limit` from now.
    pub fn run_for(&self, limit: Duration) {
        let end = self.now() + limit;
        while matches!(self.step(end), Ok(true)) {}
    }

    /// One poll, or one step of time; false when nothing is left.
    fn step(&self, end: Instant) -> Result<bool, Stopped> {
        let (id, mut future, waker, group) = {
            let mut guard = self.0.state.lock();
            let state = &mut *guard;
            if state.ready.is_empty() {
                let Some(((at, _), _)) = state.timers.first_key_value() else { return Ok(false) };
                let at = *at;
                if at > end {
                    return Err(Stopped::Late);
                }
                state.now = state.now.max(at);
                let mut due = Vec::new();
                while let Some(first) = state.timers.first_entry()
                    && first.key().0 == at
                {
                    due.push(first.remove());
                }
                drop(guard);
                due.into_iter().for_each(Waker::wake);
                return Ok(true);
            }
            let count = u64::try_from(state.ready.len()).expect("few tasks");
            let index = usize::try_from(state.random.below(count)).expect("an index");
            let id = state.ready.swap_remove(index);
            state.polls += 1;
            state.trace = Random::new(state.trace ^ id ^ state.now.0).next_u64();
            let Some(task) = state.tasks.get_mut(&id) else { return Ok(true) };
            task.is_ready = false;
            let Some(future) = task.future.take() else { return Ok(true) };
            let group = task.group;
            RUNNING.set((state.now, group));
            (id, future, task.waker.clone(), group)
        };
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let finished = {
            let mut state = self.0.state.lock();
            match state.tasks.get_mut(&id) {
                Some(_) if done => state.tasks.remove(&id).map(|_| future),
                Some(task) => {
                    task.future = Some(future);
                    None
                }
                // Killed by itself.
                None => Some(future),
            }
        };
        drop(finished);
        RUNNING.set((RUNNING.get().0, Group(0)));
        if let Some(watcher) = self.0.watcher.get() {
            watcher(group);
        }
        let alarm = self.0.state.lock().due_alarm(group);
        if let Some(act) = alarm {
            act();
        }
        Ok(true)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Waits for virtual time.
#[must_use = "a future does nothing unless polled"]
#[derive(Debug)]
pub struct Sleep {
    exec: Executor,
    until: Instant,
    registered: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.exec.0.state.lock();
        if state.now >= this.until {
            return Poll::Ready(());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.timers.insert((this.until, id), context.waker().clone());
        this.registered = true;
        Poll::Pending
    }
}

/// The file system's runtime on a simulated node.
#[derive(Clone, Debug)]
pub struct SimRuntime {
    pub exec: Executor,
    pub group: Group,
}

impl mfs::env::Runtime for SimRuntime {
    fn now(&self) -> Instant {
        self.exec.now()
    }

    fn wall_time(&self) -> Timestamp {
        self.exec.wall_time()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.exec.sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.exec.spawn(self.group, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_only_when_nothing_can_run() {
        let exec = Executor::new(7);
        let inner = exec.clone();
        let start = exec.now();
        let waited = exec.run(Group(0), Duration::from_secs(60), async move {
            inner.sleep(Duration::from_secs(5)).await;
            inner.now()
        });
        assert_eq!(waited, Ok(start + Duration::from_secs(5)));
    }

    #[test]
    fn a_wait_for_nothing_is_told_from_a_long_one() {
        let exec = Executor::new(7);
        let never = exec.run(Group(0), Duration::from_secs(1), std::future::pending::<()>());
        assert_eq!(never, Err(Stopped::Idle));
        let sleep = exec.sleep(Duration::from_secs(5));
        assert_eq!(exec.run(Group(0), Duration::from_secs(1), sleep), Err(Stopped::Late));
    }

    #[test]
    fn killed_tasks_do_not_run_on() {
        let exec = Executor::new(7);
        let count = Arc::new(Mutex::new(0));
        for group in [Group(1), Group(2)] {
            let (exec_in, count) = (exec.clone(), Arc::clone(&count));
            exec.spawn(group, async move {
                exec_in.sleep(Duration::from_secs(1)).await;
                *count.lock() += 1;
            });
        }
        exec.run_for(Duration::from_millis(1));
        exec.kill(Group(1));
        exec.run_for(Duration::from_secs(2));
        assert_eq!(*count.lock(), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let trace = |seed| {
            let exec = Executor::new(seed);
            for i in 0..20_u64 {
                let inner = exec.clone();
                exec.spawn(Group(0), async move {
                    let wait = inner.draw(|r| r.below(1000)) + i;
                    inner.sleep(Duration::from_micros(wait)).await;
                });
            }
            exec.run_for(Duration::from_secs(1));
            exec.trace()
        };
        assert_eq!(trace(1), trace(1));
        assert_ne!(trace(1), trace(2));
    }
}
