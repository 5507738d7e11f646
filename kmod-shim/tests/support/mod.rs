//! A disk in memory and the loop that serves a front end from it.
#![allow(unreachable_pub, dead_code)] // shared by several programs, none of which uses all

use kmod_shim::front::FrontEnd;
use kmod_shim::sys::{Owner, Ring};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::{Request, RequestError, RequestOp};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Answers requests from memory.
pub struct MemoryDisk {
    pub bytes: Vec<u8>,
}

impl MemoryDisk {
    pub fn new(size: usize) -> Self {
        Self { bytes: vec![0; size] }
    }

    pub fn serve(&mut self, request: &Request) -> Result<Option<Buf>, RequestError> {
        let from = usize::try_from(request.extent.offset).map_err(|_| RequestError::Invalid)?;
        let to = usize::try_from(request.extent.end()).map_err(|_| RequestError::Invalid)?;
        let place = self.bytes.get_mut(from..to).ok_or(RequestError::Invalid)?;
        match &request.op {
            RequestOp::Read => return Ok(Some(BufMut::copied_from(place).freeze())),
            RequestOp::Write(data) => place.copy_from_slice(data),
            RequestOp::Zero { .. } => place.fill(0),
            RequestOp::Flush => {}
        }
        Ok(None)
    }
}

/// Runs `front_end` on a ring of this thread until `stop` is set and all is closed. `answer`
/// decides about each request.
pub fn serve(
    front_end: &mut dyn FrontEnd,
    stop: &AtomicBool,
    mut answer: impl FnMut(&Request) -> Result<Option<Buf>, RequestError>,
) -> io::Result<()> {
    let mut ring = Ring::new()?;
    front_end.start(&mut ring.owner(Owner::FRONT_END))?;
    let mut stopping = false;
    while !front_end.is_stopped() {
        if stop.load(Ordering::Relaxed) && !stopping {
            stopping = true;
            front_end.stop(&mut ring.owner(Owner::FRONT_END));
        }
        let mut done = Vec::new();
        ring.wait(Some(Duration::from_millis(10)), &mut done)?;
        let mut requests = Vec::new();
        for (_, cqe) in done {
            front_end.on_cqe(cqe, &mut ring.owner(Owner::FRONT_END), &mut requests);
        }
        if let Some(Err(e)) = front_end.opened() {
            return Err(e);
        }
        if let Some(complaint) = front_end.complaint() {
            eprintln!("{complaint}");
        }
        let mut queue = VecDeque::from(requests);
        while let Some(request) = queue.pop_front() {
            let result = answer(&request);
            let mut more = Vec::new();
            front_end.complete(request.id, result, &mut ring.owner(Owner::FRONT_END), &mut more);
            queue.extend(more);
        }
    }
    Ok(())
}
