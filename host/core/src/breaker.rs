//! A circuit breaker: whoever fails again and again is left alone for a while, then tried with one call.
//!
//! Pure: it knows no clock; times are milliseconds since any fixed point.
//!
//! **Invariants:** a breaker that is open lets nobody through before its rest is over; after it exactly one call at a time
//! goes through until one succeeds; each rest in a row is at least twice as long as the one before, up to a bound; who fails for long
//! rests so much longer that it takes a small part of the time only.

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// Milliseconds that failures in a row may take together, however few they are.
    pub took_ms_max: u64,
    /// A rest is at least so many times as long as the failure before it took.
    pub rest_over_took: u64,
    /// The first rest.
    pub rest_ms: u64,
    /// The longest rest.
    pub rest_ms_max: u64,
    /// Rests in a row, without a success between, after which it does not close by itself any more.
    pub rests_max: u32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { failures_max: 5, took_ms_max: 6_000, rest_over_took: 10, rest_ms: 1_000, rest_ms_max: 300_000, rests_max: 8 }
    }
}

/// What a breaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed,
    /// None goes through before this time.
    Open {
        /// When one may try.
        until_ms: u64,
    },
    /// One is trying, since this time.
    Trying {
        /// When it began.
        since_ms: u64,
    },
    /// None goes through until somebody says so.
    Stuck,
}

/// A breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    tolerance: Tolerance,
    state: State,
    /// Failures in a row while closed.
    failures: u32,
    /// Milliseconds that they took.
    took_ms: u64,
    /// Rests in a row.
    rests: u32,
    /// How long the last of them was.
    last_rest_ms: u64,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anybody must hear of.
    None,
    /// It rests for so many milliseconds.
    Opened {
        /// How long.
        rest_ms: u64,
    },
    /// It rests for good.
    Stuck,
    /// Calls go through again.
    Closed,
}

/// Why a call does not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It rests; milliseconds until one may try.
    For(u64),
    /// It rests for good.
    ForGood,
}

impl Breaker {
    /// Returns a closed breaker.
    #[must_use]
    pub const fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, state: State::Closed, failures: 0, took_ms: 0, rests: 0, last_rest_ms: 0 }
    }

    /// Returns what it is doing.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Asks whether a call goes through now. Who is let through reports how it went.
    ///
    /// # Errors
    /// [`Held`]: it does not.
    pub fn admit(&mut self, now_ms: u64) -> Result<(), Held> {
        match self.state {
            State::Closed => Ok(()),
            State::Stuck => Err(Held::ForGood),
            State::Open { until_ms } if now_ms < until_ms => Err(Held::For(until_ms - now_ms)),
            // A try whose end nobody reported must not hold the breaker for ever.
            State::Trying { since_ms } if now_ms.saturating_sub(since_ms) < self.tolerance.rest_ms_max => {
                Err(Held::For(self.tolerance.rest_ms))
            }
            State::Open { .. } | State::Trying { .. } => {
                self.state = State::Trying { since_ms: now_ms };
                Ok(())
            }
        }
    }

    /// Takes note of a call that succeeded.
    pub fn succeeded(&mut self) -> Change {
        (self.failures, self.took_ms) = (0, 0);
        match self.state {
            State::Closed | State::Stuck => Change::None,
            State::Open { .. } | State::Trying { .. } => {
                *self = Self::new(self.tolerance);
                Change::Closed
            }
        }
    }

    /// Returns whether a call would be held now.
    #[must_use]
    pub fn holds(&self, now_ms: u64) -> bool {
        let mut tried = *self;
        tried.admit(now_ms).is_err()
    }

    /// Takes note of a call that was let through and says nothing of whom it was for: it was given up, or had no turn.
    pub fn gave_nothing(&mut self, now_ms: u64) {
        if let State::Trying { .. } = self.state {
            self.state = State::Open { until_ms: now_ms };
        }
    }

    /// Takes note of a call that failed, and how long it took.
    pub fn failed(&mut self, now_ms: u64, took_ms: u64) -> Change {
        match self.state {
            // Calls that were under way when it opened say nothing new.
            State::Stuck | State::Open { .. } => return Change::None,
            State::Closed => {
                self.failures += 1;
                self.took_ms = self.took_ms.saturating_add(took_ms);
                if self.failures < self.tolerance.failures_max && self.took_ms <= self.tolerance.took_ms_max {
                    return Change::None;
                }
            }
            State::Trying { .. } => {}
        }
        (self.failures, self.took_ms) = (0, 0);
        if self.rests >= self.tolerance.rests_max {
            self.state = State::Stuck;
            return Change::Stuck;
        }
        let least = self.tolerance.rest_ms.max(self.last_rest_ms.saturating_mul(2));
        let rest_ms = least.max(took_ms.saturating_mul(self.tolerance.rest_over_took)).min(self.tolerance.rest_ms_max);
        self.last_rest_ms = rest_ms;
        self.rests += 1;
        self.state = State::Open { until_ms: now_ms.saturating_add(rest_ms) };
        Change::Opened { rest_ms }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Tolerance =
        Tolerance { failures_max: 3, took_ms_max: 50, rest_over_took: 10, rest_ms: 100, rest_ms_max: 300, rests_max: 3 };

    #[test]
    fn it_opens_tries_rests_longer_and_gives_up() {
        let mut breaker = Breaker::new(QUICK);
        assert_eq!((breaker.failed(0, 0), breaker.failed(0, 0)), (Change::None, Change::None));
        assert_eq!(breaker.succeeded(), Change::None);
        assert_eq!((breaker.failed(0, 0), breaker.failed(0, 0)), (Change::None, Change::None), "a success forgets what was before");
        assert_eq!(breaker.failed(10, 0), Change::Opened { rest_ms: 100 });
        assert_eq!(breaker.admit(60), Err(Held::For(50)));
        assert_eq!(breaker.admit(110), Ok(()));
        assert_eq!(breaker.admit(111), Err(Held::For(100)), "one tries, the others wait");
        assert_eq!(breaker.failed(112, 0), Change::Opened { rest_ms: 200 });
        assert_eq!(breaker.admit(312), Ok(()));
        assert_eq!(breaker.failed(313, 0), Change::Opened { rest_ms: 300 });
        assert_eq!(breaker.admit(613), Ok(()));
        assert_eq!(breaker.failed(614, 0), Change::Stuck);
        assert_eq!(breaker.admit(u64::MAX), Err(Held::ForGood));
    }

    #[test]
    fn who_fails_for_long_rests_sooner_and_longer() {
        let mut breaker = Breaker::new(QUICK);
        assert_eq!(breaker.failed(0, 30), Change::None);
        assert_eq!(breaker.succeeded(), Change::None, "and what failures took is forgotten with them");
        assert_eq!(breaker.failed(0, 30), Change::None);
        assert_eq!(breaker.failed(0, 21), Change::Opened { rest_ms: 210 }, "two of them took 51 ms");
        assert_eq!(breaker.admit(210), Ok(()));
        assert_eq!(breaker.failed(220, 1_000), Change::Opened { rest_ms: 300 }, "no rest is longer than the longest");
    }

    #[test]
    fn a_rest_is_twice_the_one_before_whatever_made_that_long() {
        let mut breaker = Breaker::new(Tolerance { rest_ms_max: 10_000, ..QUICK });
        assert_eq!(breaker.failed(0, 60), Change::Opened { rest_ms: 600 });
        assert_eq!(breaker.admit(600), Ok(()));
        assert_eq!(breaker.failed(600, 0), Change::Opened { rest_ms: 1_200 });
    }

    #[test]
    fn a_call_that_says_nothing_changes_nothing_and_lets_the_next_one_try() {
        let mut breaker = Breaker::new(QUICK);
        assert_eq!((breaker.failed(0, 0), breaker.failed(0, 0)), (Change::None, Change::None));
        breaker.gave_nothing(0);
        assert_eq!(breaker.failed(0, 0), Change::Opened { rest_ms: 100 }, "it is no success");
        breaker.gave_nothing(1);
        assert!(breaker.holds(50) && breaker.admit(100).is_ok() && breaker.holds(101));
        breaker.gave_nothing(101);
        assert_eq!(breaker.admit(101), Ok(()), "another one tries at once");
    }

    #[test]
    fn a_success_closes_it_and_forgets_the_rests() {
        let mut breaker = Breaker::new(QUICK);
        for _ in 0..3 {
            breaker.failed(0, 0);
        }
        assert_eq!(breaker.admit(100), Ok(()));
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker, Breaker::new(QUICK));
    }

    #[test]
    fn a_try_that_is_never_reported_is_given_up() {
        let mut breaker = Breaker::new(QUICK);
        for _ in 0..3 {
            breaker.failed(0, 0);
        }
        assert_eq!(breaker.admit(100), Ok(()));
        assert!(breaker.admit(399).is_err());
        assert_eq!(breaker.admit(400), Ok(()));
    }

    proptest! {
        /// Whatever happens: nobody goes through while it rests, and it is never held for longer than the longest rest.
        #[test]
        fn rests_are_kept_and_bounded(steps in prop::collection::vec((0_u64..200, any::<bool>()), 1..200)) {
            let mut breaker = Breaker::new(Tolerance { rests_max: u32::MAX, ..QUICK });
            let mut now = 0;
            let mut resting_until = 0;
            for (step, fails) in steps {
                now += step;
                match breaker.admit(now) {
                    Ok(()) => {
                        prop_assert!(now >= resting_until);
                        let change = if fails { breaker.failed(now, 0) } else { breaker.succeeded() };
                        if let Change::Opened { rest_ms } = change {
                            prop_assert!((QUICK.rest_ms..=QUICK.rest_ms_max).contains(&rest_ms));
                            resting_until = now + rest_ms;
                        }
                    }
                    Err(Held::For(left)) => prop_assert!(left <= QUICK.rest_ms_max),
                    Err(Held::ForGood) => prop_assert!(false, "it never gives up here"),
                }
            }
        }
    }
}
