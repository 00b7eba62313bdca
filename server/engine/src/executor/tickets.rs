//! Steps between submit and wait: which may come next, which is waited for next, and what a failure takes down with it.

use std::collections::VecDeque;

use super::check::{Limits, check, sampled_rows};
use super::{Capabilities, ExecutorError, Ticket};
use crate::step::{Step, StepId};

/// Steps submitted and not yet waited for, each with the `T` that becomes its outcome.
#[derive(Debug)]
pub(super) struct Tickets<T> {
    /// Oldest first.
    queue: VecDeque<(StepId, T)>,
    last_submitted: Option<StepId>,
    /// Rows of that step which a next one may name as in flight.
    last_sampled: Vec<u32>,
    /// A failure, and the last step it takes down with it.
    failure: Option<(StepId, ExecutorError)>,
}

/// A step that may be queued.
#[derive(Debug)]
#[must_use = "an admitted step is queued, or failed"]
pub(super) struct Admitted {
    id: StepId,
    sampled: Vec<u32>,
}

impl<T> Tickets<T> {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            last_submitted: None,
            last_sampled: Vec::new(),
            failure: None,
        }
    }

    /// Takes `step` for the one submitted last. `heads` are the query heads of each layer.
    ///
    /// # Errors
    /// As many steps as `capabilities` allow are in flight, it comes late, or it contradicts itself or the pool. It does no harm
    /// then.
    pub(super) fn admit(
        &mut self,
        step: &Step,
        capabilities: &Capabilities,
        heads: &[usize],
    ) -> Result<Admitted, ExecutorError> {
        if self.queue.len() >= capabilities.depth {
            let why = format!("{} steps are in flight already", self.queue.len());
            return Err(ExecutorError::Malformed(why));
        }
        if self.last_submitted.is_some_and(|last| step.id <= last) {
            return Err(ExecutorError::Malformed(format!("step {} comes late", step.id.0)));
        }
        check(step, &Limits { capabilities, heads, sampled_before: &self.last_sampled })?;
        self.last_submitted = Some(step.id);
        Ok(Admitted { id: step.id, sampled: sampled_rows(step) })
    }

    /// Queues the step admitted last.
    pub(super) fn push(&mut self, admitted: Admitted, work: T) -> Ticket {
        self.last_sampled = admitted.sampled;
        self.queue.push_back((admitted.id, work));
        Ticket(admitted.id)
    }

    /// What was queued for the oldest step, whose ticket this must be.
    ///
    /// # Errors
    /// It is another's, or a failure took the step down, which is not in flight any more then.
    pub(super) fn take(&mut self, ticket: Ticket) -> Result<T, ExecutorError> {
        let Some((id, work)) = self.queue.pop_front() else {
            return Err(ExecutorError::Malformed(format!("step {} not in flight", ticket.0.0)));
        };
        if id != ticket.0 {
            let why = format!("step {} waited for before step {}", ticket.0.0, id.0);
            self.queue.push_front((id, work));
            return Err(ExecutorError::Malformed(why));
        }
        match &self.failure {
            Some((last, why)) if id <= *last => Err(why.clone()),
            _ => Ok(work),
        }
    }

    /// Remembers that a step failed of `error`, which it hands back: those submitted behind it were planned on tokens and KV
    /// that never came to be.
    pub(super) fn fail(&mut self, error: ExecutorError) -> ExecutorError {
        self.failure = self.last_submitted.map(|last| (last, error.clone()));
        self.last_sampled.clear();
        error
    }

    /// Drops all that is in flight. Steps go on being numbered from where they were.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.last_sampled.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sampling::SampleSpec;
    use crate::step::{StepSequence, TokenSource, Want};

    fn capabilities(depth: usize) -> Capabilities {
        Capabilities {
            block_size: 4,
            blocks: 1,
            depth,
            max_rows: 4,
            max_wants: 4,
            vocab: 10,
            max_context: 4,
            kv_bytes: 0,
            kv_type: "f16",
            name: "none".to_owned(),
        }
    }

    /// A row at position 0, sampled.
    fn step(id: u64, token: TokenSource) -> Step {
        Step {
            id: StepId(id),
            tokens: vec![token],
            positions: vec![0],
            slots: vec![0],
            sequences: vec![StepSequence {
                first_row: 0,
                rows: 1,
                context: 1,
                blocks: Arc::new([0]),
                adapter: None,
                bias: Arc::new([]),
            }],
            copies: Vec::new(),
            wants: vec![(0, Want::Sample(SampleSpec::greedy()))],
        }
    }

    const KNOWN: TokenSource = TokenSource::Literal(1);
    const DRAWN: TokenSource = TokenSource::InFlight { row: 0 };

    fn submit(
        tickets: &mut Tickets<u64>,
        id: u64,
        token: TokenSource,
    ) -> Result<Ticket, ExecutorError> {
        let admitted = tickets.admit(&step(id, token), &capabilities(2), &[1])?;
        Ok(tickets.push(admitted, id))
    }

    fn is_malformed<T>(made: &Result<T, ExecutorError>, why: &str) -> bool {
        matches!(made, Err(ExecutorError::Malformed(text)) if text.contains(why))
    }

    #[test]
    fn steps_come_and_go_in_order() {
        let mut tickets = Tickets::new();
        let first = submit(&mut tickets, 5, KNOWN).unwrap();
        assert!(is_malformed(&submit(&mut tickets, 5, KNOWN), "late"));
        let second = submit(&mut tickets, 7, KNOWN).unwrap();
        assert!(is_malformed(&submit(&mut tickets, 8, KNOWN), "in flight already"));
        assert!(is_malformed(&tickets.take(Ticket(StepId(7))), "waited for before step 5"));
        assert_eq!(tickets.take(first).unwrap(), 5);
        assert_eq!(tickets.take(second).unwrap(), 7);
        assert!(is_malformed(&tickets.take(Ticket(StepId(7))), "not in flight"));
    }

    #[test]
    fn a_token_in_flight_is_of_the_step_before() {
        let mut tickets = Tickets::new();
        assert!(submit(&mut tickets, 0, DRAWN).is_err());
        let first = submit(&mut tickets, 1, KNOWN).unwrap();
        tickets.take(first).unwrap();
        // Waited for or not, it is there.
        let mut silent = step(2, DRAWN);
        silent.wants.clear();
        let admitted = tickets.admit(&silent, &capabilities(2), &[1]).unwrap();
        let _second = tickets.push(admitted, 2);
        assert!(submit(&mut tickets, 3, DRAWN).is_err());
    }

    #[test]
    fn a_failure_takes_down_what_was_submitted_and_no_more() {
        let mut tickets = Tickets::new();
        let first = submit(&mut tickets, 1, KNOWN).unwrap();
        let behind = submit(&mut tickets, 2, DRAWN).unwrap();
        tickets.take(first).unwrap();
        let error = tickets.fail(ExecutorError::Lost("gone".to_owned()));
        assert!(matches!(error, ExecutorError::Lost(_)));
        assert!(submit(&mut tickets, 3, DRAWN).is_err(), "nothing is drawn");
        let after = submit(&mut tickets, 3, KNOWN).unwrap();
        assert!(matches!(tickets.take(behind), Err(ExecutorError::Lost(why)) if why == "gone"));
        assert_eq!(tickets.take(after).unwrap(), 3);
    }

    #[test]
    fn a_step_that_was_admitted_and_could_not_be_queued_fails_alone() {
        let mut tickets = Tickets::new();
        let first = submit(&mut tickets, 1, KNOWN).unwrap();
        let _admitted = tickets.admit(&step(2, DRAWN), &capabilities(2), &[1]).unwrap();
        let _ = tickets.fail(ExecutorError::Failed("no room".to_owned()));
        assert!(tickets.take(first).is_err(), "what was in flight goes with it");
        let next = submit(&mut tickets, 3, KNOWN).unwrap();
        assert_eq!(tickets.take(next).unwrap(), 3);
    }

    #[test]
    fn a_new_start_leaves_nothing_in_flight() {
        let mut tickets = Tickets::new();
        let first = submit(&mut tickets, 1, KNOWN).unwrap();
        tickets.clear();
        assert!(is_malformed(&tickets.take(first), "not in flight"));
        assert!(submit(&mut tickets, 1, KNOWN).is_err(), "numbers go on");
        assert!(submit(&mut tickets, 2, DRAWN).is_err());
        let _next = submit(&mut tickets, 2, KNOWN).unwrap();
    }
}
