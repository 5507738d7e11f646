//! `clpmdstat --watch`: the state again and again, with a bar for a running recovery.

use crate::clpmdstat::{reports, states};
use crate::out::Failure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mirror_agent::ctl::{Client, MirrorReport};
use mirror_core::status::RecoveryStatus;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(1);
/// Home, and clear to the end of the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the state until interrupted. On a terminal the screen is drawn anew each time; otherwise
/// only what has changed is written.
///
/// # Errors
/// The agent refused or went away.
pub fn run(client: &mut Client, mirror: Option<&str>) -> Result<(), Failure> {
    let screen = io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let all = reports(client, mirror)?;
        let text = states(&all);
        if screen {
            draw(&all, &text)?;
        } else if text != last {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()?;
        }
        last = text;
        std::thread::sleep(PAUSE);
    }
}

fn draw(all: &[MirrorReport], text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{CLEAR}{text}")?;
    out.flush()?;
    drop(out);
    for report in all {
        if let Some(recovery) = &report.status.recovery {
            bar(&report.name, recovery).abandon();
        }
    }
    Ok(())
}

/// A bar that shows the state of `recovery`. It is not finished: an unfinished copy is never
/// drawn as complete.
pub(crate) fn bar(name: &str, recovery: &RecoveryStatus) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} [{wide_bar}] {bytes}/{total_bytes} {percent}%")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
    let bar =
        ProgressBar::with_draw_target(Some(recovery.total_bytes), ProgressDrawTarget::stdout());
    bar.set_style(style);
    bar.set_prefix(name.to_owned());
    bar.set_position(recovery.copied_bytes.min(recovery.total_bytes));
    bar
}
