//! One agent's inbox as plainly as it can be said, with no index and no line: what the real ones are compared with. It knows no type
//! of theirs, so that it cannot share a mistake with them.

/// Where a letter stands. Times are in whatever unit the test counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Waiting(i64),
    Leased(i64),
    Acked,
    Dead,
    Expired,
}

/// A message in the inbox; its place among the letters is its order.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) thread: usize,
    pub(crate) priority: u8,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    pub(crate) seen: bool,
    pub(crate) expires_at: Option<i64>,
}

impl Letter {
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Ready | State::Waiting(_) | State::Leased(_))
    }

    fn is_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }
}

/// The inbox.
#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) now: i64,
    pub(crate) letters: Vec<Letter>,
    lease: i64,
    attempts_max: u32,
}

impl Naive {
    pub(crate) fn new(lease: i64, attempts_max: u32) -> Self {
        Self { now: 0, letters: Vec::new(), lease, attempts_max }
    }

    pub(crate) fn send(&mut self, thread: usize, priority: u8, expires_in: Option<i64>) {
        let expires_at = expires_in.map(|after| self.now + after);
        self.letters.push(Letter { thread, priority, state: State::Ready, attempts: 0, seen: false, expires_at });
    }

    /// Hands out the first `max` that may be, and returns which.
    pub(crate) fn take(&mut self, max: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.letters.len()).collect();
        order.sort_by_key(|&i| (u8::MAX - self.letters[i].priority, i));
        let mut taken = Vec::new();
        for i in order {
            let thread = self.letters[i].thread;
            let is_behind = self.letters[..i].iter().any(|before| before.thread == thread && matches!(before.state, State::Waiting(_)));
            if taken.len() < max && self.letters[i].state == State::Ready && !is_behind {
                let until = self.now + self.lease;
                let letter = &mut self.letters[i];
                letter.state = State::Leased(until);
                letter.attempts += 1;
                letter.seen = true;
                taken.push(i);
            }
        }
        taken
    }

    /// Returns whether it fits.
    pub(crate) fn ack(&mut self, i: usize) -> bool {
        let letter = &mut self.letters[i];
        if letter.is_live() && letter.seen {
            letter.state = State::Acked;
        }
        letter.state == State::Acked
    }

    /// Returns whether it fits.
    pub(crate) fn nack(&mut self, i: usize, delay: i64) -> bool {
        let letter = &self.letters[i];
        if letter.state == State::Acked || letter.is_live() && !letter.seen {
            return false;
        }
        if matches!(letter.state, State::Leased(_)) {
            self.give_back(i, delay);
        }
        true
    }

    fn give_back(&mut self, i: usize, delay: i64) {
        let (now, attempts_max) = (self.now, self.attempts_max);
        let letter = &mut self.letters[i];
        letter.state = if letter.is_expired(now) {
            State::Expired
        } else if letter.attempts >= attempts_max {
            State::Dead
        } else if delay == 0 {
            State::Ready
        } else {
            State::Waiting(now + delay)
        };
    }

    /// The agent lost what it had in hand.
    pub(crate) fn recall(&mut self, is_taken_back: bool) {
        for i in 0..self.letters.len() {
            if matches!(self.letters[i].state, State::Leased(_)) {
                self.letters[i].attempts -= u32::from(is_taken_back);
                self.give_back(i, 0);
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: i64) {
        self.now += time;
        for i in 0..self.letters.len() {
            let is_expired = self.letters[i].is_expired(self.now);
            match self.letters[i].state {
                State::Leased(until) if until <= self.now => self.give_back(i, 0),
                State::Ready | State::Waiting(_) if is_expired => self.letters[i].state = State::Expired,
                State::Waiting(until) if until <= self.now => self.letters[i].state = State::Ready,
                State::Ready | State::Waiting(_) | State::Leased(_) | State::Acked | State::Dead | State::Expired => {}
            }
        }
    }
}
