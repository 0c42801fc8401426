//! Who lands first: what others wait for, hotfixes, priority, time waited.

use pointsman_sdk::workflow::Waiting;

/// What makes a branch come first; the greatest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    hotfix: bool,
    priority: u8,
    waited_ms: u64,
}

/// Orders a queue. A branch that others must follow is as urgent as the most urgent of them. Branches that wait
/// for each other in a circle come last, in their own order of urgency.
pub(crate) fn merge_order(queue: &[Waiting], hotfix_kinds: &[String]) -> Vec<u32> {
    let after: Vec<Vec<usize>> = queue.iter().enumerate().map(|(n, one)| predecessors(n, one, queue.len())).collect();
    let own = |one: &Waiting| Urgency { hotfix: hotfix_kinds.contains(&one.kind), priority: one.priority, waited_ms: one.waited_ms };
    let urgency = inherited(queue.iter().map(own).collect(), &after);
    let mut landed = vec![false; queue.len()];
    let mut order = Vec::with_capacity(queue.len());
    while order.len() < queue.len() {
        let waiting = || (0..queue.len()).filter(|n| !landed[*n]);
        let ready = waiting().filter(|n| after[*n].iter().all(|before| landed[*before]));
        // The lower position wins among equals, so that the answer is one.
        let key = |n: &usize| (urgency[*n], std::cmp::Reverse(*n));
        let Some(next) = ready.max_by_key(key).or_else(|| waiting().max_by_key(key)) else { break };
        landed[next] = true;
        order.push(u32::try_from(next).unwrap_or(u32::MAX));
    }
    order
}

/// Returns the positions a branch must follow, without itself and without what is not in the queue.
fn predecessors(position: usize, one: &Waiting, len: usize) -> Vec<usize> {
    let known = |before: &u32| usize::try_from(*before).ok().filter(|before| *before < len && *before != position);
    one.after.iter().filter_map(known).collect()
}

/// Raises each branch to the urgency of those that follow it.
fn inherited(mut urgency: Vec<Urgency>, after: &[Vec<usize>]) -> Vec<Urgency> {
    let mut raised: Vec<usize> = (0..after.len()).collect();
    while let Some(follower) = raised.pop() {
        for before in &after[follower] {
            if urgency[*before] < urgency[follower] {
                urgency[*before] = urgency[follower];
                raised.push(*before);
            }
        }
    }
    urgency
}
