//! What the work on a file system tells while it goes on, for the event log.

use super::command::Exit;
use std::fmt;
use std::sync::Arc;

/// Something that happened to a command of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FsEvent {
    /// A file system that could not be mounted is being checked: program and options.
    CheckStarted(&'static str, String),
    /// That check has succeeded.
    CheckDone,
    /// A command failed for good: program and how it ended.
    Failed(&'static str, String),
    /// A check could not repair with the configured options: program and the option that would.
    Needed(&'static str, &'static str),
    /// An unmount took too long.
    UmountTimeout,
    /// A check took too long.
    CheckTimeout,
}

/// Who is told; nobody by default.
#[derive(Clone, Default)]
pub(super) struct Listener(Option<Arc<dyn Fn(FsEvent) + Send + Sync>>);

impl Listener {
    pub(super) fn new(listener: impl Fn(FsEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn tell(&self, event: FsEvent) {
        if let Some(listener) = &self.0 {
            listener(event);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "listener" } else { "nobody" })
    }
}

/// The number of an exit, as a shell gives it.
pub(super) fn number(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => code.to_string(),
        Exit::Signal(signal) => (128 + signal).to_string(),
    }
}
