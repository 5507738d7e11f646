//! The requests of a device that the core has, and whose memory is lent.

use crate::front::first_request;
use mirror_core::buf::Buf;
use mirror_core::io::{RequestError, RequestId};
use std::collections::{HashMap, HashSet};

/// The core's answer.
pub(super) type Answer = Result<Option<Buf>, RequestError>;

/// A request that the core has.
struct Open {
    tag: u16,
    /// Bytes that a success reports.
    bytes: u32,
    /// It reads, and its memory is registered with the ring.
    lendable: bool,
    /// Its answer, which came while its memory was lent.
    late: Option<Answer>,
}

/// What is to be told the driver now.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Settled {
    pub(super) tag: u16,
    /// Bytes that a success without bytes of its own reports.
    pub(super) bytes: u32,
    pub(super) answer: Answer,
}

/// See the module.
pub(super) struct Requests {
    open: HashMap<RequestId, Open>,
    /// Whose memory somebody may write to, also those that were ended meanwhile.
    lent: HashSet<RequestId>,
    next: u64,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { open: HashMap::new(), lent: HashSet::new(), next: first_request() }
    }

    /// A new one, which is with the core from now on.
    pub(super) fn add(&mut self, tag: u16, bytes: u32, lendable: bool) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        self.open.insert(id, Open { tag, bytes, lendable, late: None });
        id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether anything is lent.
    pub(super) fn lends(&self) -> bool {
        !self.lent.is_empty()
    }

    /// Lends the memory of a request: its tag.
    pub(super) fn lend(&mut self, id: RequestId) -> Option<u16> {
        let tag = self.open.get(&id).filter(|open| open.lendable)?.tag;
        self.lent.insert(id).then_some(tag)
    }

    /// The core has answered. Whoever reads into memory that is lent may still write: what is put
    /// there now, or reported as there, could be something else a moment later. So that waits.
    pub(super) fn answer(&mut self, id: RequestId, answer: Answer) -> Option<Settled> {
        if self.lent.contains(&id) {
            self.open.get_mut(&id)?.late = Some(answer);
            return None;
        }
        let Open { tag, bytes, .. } = self.open.remove(&id)?;
        Some(Settled { tag, bytes, answer })
    }

    /// What was lent is back; gives the answer that has waited for it.
    pub(super) fn given_back(&mut self, id: RequestId) -> Option<Settled> {
        self.lent.remove(&id);
        let answer = self.open.get_mut(&id)?.late.take()?;
        self.answer(id, answer)
    }

    /// Ends all: their tags. What is lent stays lent.
    pub(super) fn end_all(&mut self) -> Vec<u16> {
        self.open.drain().map(|(_, open)| open.tag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Answer {
        Ok(Some(Buf::copied_from(&[7; 512])))
    }

    #[test]
    fn memory_is_lent_once_and_only_if_it_can_be() {
        let mut requests = Requests::new();
        let (read, other) = (requests.add(3, 512, true), requests.add(4, 0, false));
        assert_eq!(requests.lend(other), None);
        assert_eq!(requests.lend(read), Some(3));
        assert_eq!(requests.lend(read), None, "lent twice");
        assert_eq!(requests.lend(RequestId(99)), None);
        assert!(requests.lends());
    }

    #[test]
    fn an_answer_waits_for_what_is_lent() {
        let mut requests = Requests::new();
        let id = requests.add(3, 512, true);
        requests.lend(id);
        assert_eq!(requests.answer(id, data()), None);
        let settled = Settled { tag: 3, bytes: 512, answer: data() };
        assert_eq!(requests.given_back(id), Some(settled));
        assert!(requests.is_empty() && !requests.lends());
        assert_eq!(requests.given_back(id), None);
    }

    #[test]
    fn what_comes_back_before_its_answer_is_settled_by_that() {
        let mut requests = Requests::new();
        let id = requests.add(3, 512, true);
        requests.lend(id);
        assert_eq!(requests.given_back(id), None);
        assert!(!requests.lends());
        let settled = Settled { tag: 3, bytes: 512, answer: Ok(None) };
        assert_eq!(requests.answer(id, Ok(None)), Some(settled));
        assert_eq!(requests.answer(id, Ok(None)), None, "answered twice");
    }

    #[test]
    fn what_is_lent_stays_lent_when_its_request_is_ended() {
        let mut requests = Requests::new();
        let id = requests.add(3, 512, true);
        requests.add(4, 512, true);
        requests.lend(id);
        let mut tags = requests.end_all();
        tags.sort_unstable();
        assert_eq!(tags, [3, 4]);
        assert!(requests.is_empty() && requests.lends());
        assert_eq!(requests.answer(id, data()), None);
        assert_eq!(requests.given_back(id), None);
        assert!(!requests.lends());
    }
}
