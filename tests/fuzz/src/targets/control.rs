//! The control socket: a line from a tool, a line from an agent and what a tool makes of it.

use jiff::tz::TimeZone;
use mirror_agent::ctl::{Query, Reply, Response, VERSION};
use tools::layout;

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(query) = Query::parse(bytes) {
        assert_eq!(query.version, VERSION);
        let line = serde_json::to_vec(&query).expect("it can be said");
        assert!(!line.contains(&b'\n'));
        assert_eq!(Query::parse(&line), Ok(query));
    }
    if let Ok(reply) = Reply::parse(bytes) {
        assert_eq!(reply.version, VERSION);
        let line = serde_json::to_vec(&reply).expect("it can be said");
        assert!(!line.contains(&b'\n'));
        if let Response::Status(reports) = &reply.response {
            for report in reports {
                let _ = layout::state(report, &TimeZone::UTC);
                let _ = layout::active(report);
            }
        }
        assert_eq!(Reply::parse(&line), Ok(reply));
    }
}
